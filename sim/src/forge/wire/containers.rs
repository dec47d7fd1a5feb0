//! Containers in the job message: tokens of a workflow's text, of which `{"type": 2, "map": […]}` is a map and
//! `{"type": 1, "seq": […]}` a list.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::containers::ContainerSpec;
use super::super::state::JobSpec;
use crate::protocol::Step;

/// A map of texts and of other tokens.
pub(super) fn map<K: AsRef<str>>(members: impl IntoIterator<Item = (K, Value)>) -> Value {
    let pairs = members.into_iter().map(|(key, value)| json!({"Key": key.as_ref(), "Value": value}));
    json!({"type": 2, "map": pairs.collect::<Vec<_>>()})
}

/// One container; members that say nothing are left out, as a workflow leaves them out.
fn container(spec: &ContainerSpec) -> Value {
    let list = |items: &[String]| (!items.is_empty()).then(|| json!({"type": 1, "seq": items}));
    let env = (!spec.env.is_empty()).then(|| map(spec.env.iter().map(|(key, value)| (key, json!(value)))));
    let members = [
        ("image", Some(json!(spec.image))),
        ("env", env),
        ("volumes", list(&spec.volumes)),
        ("ports", list(&spec.ports)),
        ("options", spec.options.as_ref().map(|options| json!(options))),
    ];
    map(members.into_iter().filter_map(|(key, value)| Some((key, value?))))
}

fn services(specs: &BTreeMap<String, ContainerSpec>) -> Value {
    map(specs.iter().map(|(alias, spec)| (alias, container(spec))))
}

/// Puts the containers of a job into its message.
///
/// The official runner pulls whatever its job names. That images are not pulled is no part of GitHub's message: it travels
/// as a variable, which the official runner passes over, as it does with all that it does not know.
pub(super) fn add(message: &mut Value, spec: &JobSpec) {
    if let Some(own) = &spec.container {
        message["jobContainer"] = container(own);
    }
    if !spec.services.is_empty() {
        message["jobServiceContainers"] = services(&spec.services);
    }
    if spec.pull == Some(false) {
        message["variables"]["oscr.sim.pull"] = json!({"value": "false", "isSecret": false});
    }
}

/// What a step runs, and with which inputs.
pub(super) fn reference_and_inputs(step: &Step) -> (Value, Value) {
    let Some(uses) = &step.uses else {
        return (json!({"type": "script"}), map([("script", json!(step.run))]));
    };
    if uses.starts_with("./") {
        let reference = json!({"type": "repository", "repositoryType": "self", "path": uses});
        return (reference, map::<&str>([]));
    }
    let image = uses.strip_prefix("docker://").unwrap_or(uses);
    let inputs = [("entrypoint", &step.entrypoint), ("args", &step.args)];
    let inputs = inputs.into_iter().filter_map(|(key, value)| Some((key, json!(value.as_ref()?))));
    (json!({"type": "containerRegistry", "image": image}), map(inputs))
}
