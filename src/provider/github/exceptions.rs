//! `NO_PROXY` as GitHub's runner reads it: names and `name:port` alone. All else is passed over, and such hosts are asked by way of the
//! proxy.

use reqwest::Url;

use super::host::Host;
use crate::config::exceptions::{Bypass, Hosts};
use crate::config::{Network, Reader};

/// Notes what the runner reads otherwise than we do.
pub(super) fn note(reader: &mut Reader<'_>, network: &Network, host: Option<&Host>) {
    if !network.has_proxy() {
        return;
    }
    let exceptions = &network.exceptions;
    let passed: Vec<&str> = exceptions.iter().filter(|one| is_passed_over(one)).map(|one| one.text.as_str()).collect();
    if !passed.is_empty() {
        reader.note(format!(
            "NO_PROXY: GitHub's runner passes over {}, and asks the proxy for such hosts: it knows names and name:port alone",
            passed.join(", ")
        ));
    }
    let own: Vec<Url> = host.iter().flat_map(|host| [&host.web, &host.api]).flat_map(|url| Url::parse(url)).collect();
    for one in exceptions.iter().filter(|one| one.text.starts_with('.')) {
        let is_itself = |url: &&Url| matches!(&one.hosts, Hosts::Domain(name) if url.host_str() == Some(name));
        if let Some(name) = own.iter().find(is_itself).and_then(|url| url.host_str()) {
            reader.note(format!(
                "NO_PROXY: {} is for GitHub's runner what is below {name}, and not {name} itself: write {name}",
                one.text
            ));
        }
    }
}

fn is_passed_over(one: &Bypass) -> bool {
    !matches!(one.hosts, Hosts::Domain(_)) || one.text.starts_with('*')
}

#[cfg(test)]
mod tests {
    use crate::provider::github::FORGE;

    fn notes(no_proxy: &str) -> Vec<String> {
        let proxy = ("HTTPS_PROXY", "http://proxy:3128");
        let own = [("GITHUB_HOST", "git.corp"), ("GITHUB_OWNER", "o"), ("GITHUB_PAT", "a-token")];
        let variables = [proxy, ("NO_PROXY", no_proxy), own[0], own[1], own[2]];
        let (_, notes) = FORGE.read_settings(variables).map_err(|problems| format!("{problems:?}")).unwrap();
        notes.into_iter().filter(|note| note.starts_with("NO_PROXY")).collect()
    }

    #[test]
    fn what_the_runner_reads_otherwise_is_noted() {
        for alike in ["git.corp", "corp", ".corp", "a.example:8443, git.corp:443"] {
            assert!(notes(alike).is_empty(), "{alike}: {:?}", notes(alike));
        }
        let said = notes("10.0.0.0/8, git.corp, 192.0.2.7, 192.0.2.8:80, 2001:db8::7, *, *.corp");
        assert_eq!(said.len(), 1);
        let passed = "passes over 10.0.0.0/8, 192.0.2.7, 192.0.2.8:80, 2001:db8::7, *, *.corp,";
        assert!(said[0].contains(passed), "{said:?}");
        assert!(notes(".git.corp")[0].contains("write git.corp"));
    }
}
