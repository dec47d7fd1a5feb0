//! The proxy of an agent that does not heed the usual variables: one for the address, and others for who asks.

use std::collections::BTreeMap;
use std::ffi::OsString;

use reqwest::Url;

use crate::config::Network;
use crate::config::proxy::decoded;
use crate::log;
use crate::provider::ProxyVariables;

/// Names the proxy of the `network`, unless the user named one to the agent. A user and a password in the address, which such an
/// agent passes over, go into variables of their own.
pub(super) fn name(env: &mut BTreeMap<String, OsString>, variables: &ProxyVariables, network: &Network) {
    if !env.contains_key(variables.address)
        && let Some(proxy) = network.https_proxy.as_ref().or(network.http_proxy.as_ref())
    {
        env.insert(variables.address.to_owned(), proxy.into());
    }
    if let Some((address, user, password)) = env.get(variables.address).and_then(|proxy| parted(proxy.to_str()?)) {
        env.insert(variables.address.to_owned(), address.into());
        if !env.contains_key(variables.user) {
            env.insert(variables.user.to_owned(), user.into());
            env.insert(variables.password.to_owned(), password.into());
            // The way in which we ask ourselves. Left to choose, the agent takes what it cannot do on every system.
            env.entry(variables.basic.to_owned()).or_insert_with(|| "true".into());
        }
    }
    // Nothing that the agent says of it reaches the log.
    if let Some(password) = env.get(variables.password).and_then(|password| password.to_str()) {
        log::redact(password);
    }
}

/// An address without the user and the password that were in it, and these two as they are meant.
fn parted(proxy: &str) -> Option<(String, String, String)> {
    let mut url = Url::parse(proxy).ok()?;
    let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    if user.is_empty() && password.is_empty() {
        return None;
    }
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    Some((url.as_str().trim_end_matches('/').to_owned(), user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIABLES: ProxyVariables =
        ProxyVariables { address: "ADDRESS", user: "USER", password: "PASSWORD", basic: "BASIC" };

    fn named<const N: usize>(proxy: Option<&str>, set: [(&str, &str); N]) -> Vec<String> {
        let mut env: BTreeMap<String, OsString> =
            set.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let network = Network { http_proxy: proxy.map(str::to_owned), ..Network::default() };
        name(&mut env, &VARIABLES, &network);
        env.into_iter().map(|(name, value)| format!("{name}={}", value.display())).collect()
    }

    #[test]
    fn who_asks_the_proxy_stands_beside_its_address() {
        assert_eq!(named(None, []), Vec::<String>::new());
        assert_eq!(named(Some("http://proxy:3128"), []), ["ADDRESS=http://proxy:3128"]);
        assert_eq!(
            named(Some("http://cor%5Cme:p%40ss%2@proxy:3128/"), []),
            ["ADDRESS=http://proxy:3128", "BASIC=true", "PASSWORD=p@ss%2", "USER=cor\\me"]
        );
        assert_eq!(named(Some("http://me@proxy"), [])[2..], ["PASSWORD=", "USER=me"]);
    }

    #[test]
    fn what_the_user_says_to_the_agent_stands() {
        let own = ("ADDRESS", "http://own:80");
        assert_eq!(named(Some("http://me:word@proxy:3128"), [own]), ["ADDRESS=http://own:80"]);
        let whole = ("ADDRESS", "http://you:secret@own:3128");
        assert_eq!(
            named(None, [whole, ("BASIC", "false")]),
            ["ADDRESS=http://own:3128", "BASIC=false", "PASSWORD=secret", "USER=you"]
        );
        assert_eq!(
            named(None, [whole, ("USER", "we"), ("PASSWORD", "other")]),
            ["ADDRESS=http://own:3128", "PASSWORD=other", "USER=we"]
        );
    }
}
