//! What a proxy on the way says for itself: who asks is not known to it, or it leads no further.

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::connect;
use super::origin::title;
use crate::config::Network;
use crate::provider::fault::Fault;

/// The most of a proxy's own page that is read, in bytes.
const LONGEST: usize = 16 * 1024;

/// It answered 407: somebody has to change a setting.
pub(super) fn unknown_to_it(network: &Network, url: &str) -> Fault {
    let Some((setting, proxy)) = network.proxy_to(url) else {
        return Fault::denied(
            format!("something on the way to {url} is a proxy that wants to know who asks (407)"),
            "name it in HTTP_PROXY or HTTPS_PROXY: http://user:password@host:port",
        );
    };
    if proxy.contains('@') {
        Fault::denied(
            format!("the proxy {proxy} does not take the user and the password in {setting} (407)"),
            format!("correct {setting}; what is special in a password is percent-encoded there, as %40 for @"),
        )
    } else {
        Fault::denied(
            format!("the proxy {proxy} wants to know who asks (407)"),
            format!("write user and password into {setting}: http://user:password@host:port"),
        )
    }
}

/// Why the proxy makes no tunnel to `url`, if it was that what an error's words are about. The client keeps the proxy's answer to
/// itself, so it is asked once more; but never who has just been told that it does not know who asks.
pub(super) async fn no_tunnel(network: &Network, url: &str, words: &str) -> Option<Fault> {
    if words.contains("proxy authorization required") {
        return Some(unknown_to_it(network, url));
    }
    if !words.contains("tunnel error: unsuccessful") {
        return None;
    }
    let (setting, proxy) = network.proxy_to(url)?;
    let far = Url::parse(url).ok()?;
    let far = format!("{}:{}", far.host_str()?, far.port_or_known_default()?);
    let said = match ask_for_tunnel(network, &far).await {
        Some((407, _)) => return Some(unknown_to_it(network, url)),
        Some((status, title)) => format!("it answered {status}{title}"),
        None => "it answered with a refusal".to_owned(),
    };
    Some(Fault::Unreachable(format!(
        "{url}: the proxy {proxy} makes no tunnel to {far}: {said} (whoever runs it must let {far} through, or set {setting} and \
         NO_PROXY otherwise)"
    )))
}

/// The status with which the proxy refuses a tunnel, and the title of its page.
async fn ask_for_tunnel(network: &Network, far: &str) -> Option<(u16, String)> {
    // As a request of its own, which a proxy for plain HTTP is given as it is.
    let network = Network { http_proxy: network.https_proxy.clone(), ..network.clone() };
    let client = connect::client(&network, true, &HeaderMap::new()).ok()?;
    let mut response = client.request(Method::CONNECT, format!("http://{far}")).send().await.ok()?;
    let status = response.status();
    if status.is_success() {
        return None;
    }
    let mut page = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await
        && page.len() < LONGEST
    {
        page.extend_from_slice(&chunk);
    }
    let title = title(&page).map(|title| format!(" ({title:?})")).unwrap_or_default();
    Some((status.as_u16(), title))
}
