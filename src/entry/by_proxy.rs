//! What `oscr-entry doctor` says of proxies: whether this forge is asked by way of one, and what two readers make of the settings.

use crate::config::{Direct, Network, Way};
use crate::provider::finding::Finding;
use crate::provider::http::{Obstacle, Reached};

/// What was noted when the settings of proxies were read.
pub(super) fn remarks(notes: &[String]) -> Vec<Finding> {
    let about = |note: &&String| {
        let first = note.split([':', ' ']).next().unwrap_or_default().to_ascii_uppercase();
        matches!(first.as_str(), "HTTP_PROXY" | "HTTPS_PROXY" | "ALL_PROXY" | "NO_PROXY")
    };
    let cure = "write what both read alike: docs/configuration.md, Proxies";
    notes.iter().filter(about).map(|note| Finding::warn("proxy", note, cure)).collect()
}

/// Whether this forge is reached by way of a proxy, and by which, and what it makes of that.
pub(super) fn by_proxy(network: &Network, url: &str, host: &str, reached: &Result<Reached, Obstacle>) -> Finding {
    let topic = "proxy";
    let way = reqwest::Url::parse(url).map_or(Way::Direct(Direct::Unset), |url| network.way(&url));
    let through = network.proxy_to(url);
    match (reached, way, through) {
        (Err(Obstacle::Proxy(fault)), ..) => Finding::fault(topic, fault),
        (Err(Obstacle::Stranger(status, what)), _, through) => {
            let by = through.map(|(setting, proxy)| format!(" ({setting} is {proxy})")).unwrap_or_default();
            let text = format!("something that is not {host} answers in its place: {status} with {what}{by}");
            Finding::fail(
                topic,
                text,
                format!("have whoever runs it let {host} through; check the proxy settings and NO_PROXY"),
            )
        }
        (Err(Obstacle::Connection(why)), _, Some((setting, proxy))) => Finding::fail(
            topic,
            format!("{proxy} does not let us through: {why}"),
            format!("check {setting} and NO_PROXY"),
        ),
        (Err(_), _, Some((setting, proxy))) => {
            Finding::skip(topic, format!("{host} is asked by way of {proxy} ({setting})"))
        }
        (Ok(_), _, Some((setting, proxy))) => {
            Finding::ok(topic, format!("{host} is asked by way of {proxy} ({setting})"))
        }
        (_, Way::Direct(Direct::OwnMachine), _) => {
            Finding::ok(topic, format!("{host} is this machine, and is asked without a proxy"))
        }
        (_, Way::Direct(Direct::Excepted(entry)), _) => {
            Finding::ok(topic, format!("{host} is asked without a proxy: {entry} in NO_PROXY is for it"))
        }
        _ if network.has_proxy() => {
            let (other, setting) = match url.starts_with("https://") {
                true => ("HTTP_PROXY", "HTTPS_PROXY"),
                false => ("HTTPS_PROXY", "HTTP_PROXY"),
            };
            Finding::warn(
                topic,
                format!("{other} is set, but {url} is reached without a proxy"),
                format!("set {setting} too, if it should go through the proxy"),
            )
        }
        _ => Finding::ok(topic, "none is set"),
    }
}
