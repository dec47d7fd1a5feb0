//! What a job's message says of containers: tokens of the workflow's text.

use serde_json::Value;

/// One container that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) image: String,
    pub(super) env: Vec<(String, String)>,
    pub(super) volumes: Vec<String>,
    pub(super) ports: Vec<String>,
    pub(super) options: String,
}

/// A literal, with or without its place in the workflow's file.
fn text(token: &Value) -> String {
    match token {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => token.to_string(),
        Value::Object(members) => members.get("lit").map(text).unwrap_or_default(),
        Value::Null | Value::Array(_) => String::new(),
    }
}

fn map(token: &Value) -> impl Iterator<Item = (String, &Value)> {
    token["map"].as_array().into_iter().flatten().map(|pair| (text(&pair["Key"]), &pair["Value"]))
}

fn list(token: &Value) -> Vec<String> {
    token["seq"].as_array().into_iter().flatten().map(text).collect()
}

/// A container; a text alone is its image. Without an image there is none.
pub(super) fn container(token: &Value) -> Option<Spec> {
    let mut spec = Spec { image: text(token), ..Spec::default() };
    for (key, value) in map(token) {
        match key.as_str() {
            "image" => spec.image = text(value),
            "env" => spec.env = map(value).map(|(key, value)| (key, text(value))).collect(),
            "volumes" => spec.volumes = list(value),
            "ports" => spec.ports = list(value),
            "options" => spec.options = text(value),
            _ => {}
        }
    }
    if let Some(image) = spec.image.strip_prefix("docker://") {
        spec.image = image.to_owned();
    }
    (!spec.image.is_empty()).then_some(spec)
}

/// Services and their names.
pub(super) fn services(token: &Value) -> Vec<(String, Spec)> {
    map(token).filter_map(|(alias, value)| Some((alias, container(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_an_image_or_a_map_whose_values_may_have_a_place() {
        let image = |token: Value| container(&token).map(|spec| spec.image);
        assert_eq!(image(json!("docker://node:20")).as_deref(), Some("node:20"));
        assert_eq!(image(json!({"type": 0, "file": 1, "line": 2, "col": 3, "lit": "a/b"})).as_deref(), Some("a/b"));
        assert_eq!((image(Value::Null), image(json!("")), image(json!({"type": 2, "map": []}))), (None, None, None));
        let token = json!({"type": 2, "map": [
            {"Key": "image", "Value": "postgres"},
            {"Key": "ports", "Value": {"type": 1, "seq": [5432, "80:80"]}},
            {"Key": {"type": 0, "lit": "env"}, "Value": {"type": 2, "map": [{"Key": "A", "Value": true}]}},
        ]});
        let spec = container(&token).unwrap();
        assert_eq!((spec.image.as_str(), spec.ports), ("postgres", vec!["5432".to_owned(), "80:80".to_owned()]));
        assert_eq!(spec.env, [("A".to_owned(), "true".to_owned())]);
    }
}
