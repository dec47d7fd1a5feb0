//! Whose answer it is: the forge's, or that of something between us and the forge. What a proxy, a gateway or a portal refuses says
//! nothing about a credential or a registration.

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde_json::Value;

use super::reply::Reply;
use crate::plain::plain;

/// Headers of which a forge puts one or more into each of its answers, and nobody else into his. Without any, all but a page for
/// people is taken for the forge's.
pub type Signature = &'static [&'static str];

/// What an answer to `url` is that the forge did not give; `None` for the forge's own.
pub(super) fn stranger(reply: &Reply, marks: Signature, url: &str) -> Option<String> {
    if is_forges(reply, marks, url) {
        return None;
    }
    let what = match (reply.status, leads_to(reply, url)) {
        (300..=399, Some(host)) => format!("a way to {host}"),
        _ if reply.is_page() => title(&reply.body)
            .map_or_else(|| "a page for people".to_owned(), |title| format!("a page for people, {title:?}")),
        _ if reply.body.is_empty() => "nothing".to_owned(),
        _ => {
            let kind = reply.header(CONTENT_TYPE.as_str()).map(plain).unwrap_or_default();
            let kind = if kind.is_empty() { String::new() } else { format!(" of type {kind}") };
            format!("{} bytes{kind}", reply.body.len())
        }
    };
    Some(what)
}

fn is_forges(reply: &Reply, marks: Signature, url: &str) -> bool {
    if marks.iter().any(|mark| reply.headers.contains_key(*mark)) {
        return true;
    }
    match reply.status {
        // They have no body that could tell. Azure DevOps itself says 203 and a page to a wrong token, where others would hand on its
        // marks with what they changed.
        203 | 204 | 304 => true,
        // Moved within one host, whoever says so.
        300..=399 => leads_to(reply, url).is_none_or(|host| host == host_of(url)),
        _ if reply.is_page() => false,
        _ if marks.is_empty() => true,
        200..=299 => serde_json::from_slice::<serde::de::IgnoredAny>(&reply.body).is_ok(),
        // What takes the marks off may leave the forge's words.
        _ => {
            let said: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            ["message", "error_description"].iter().any(|words| said[*words].is_string())
        }
    }
}

fn host_of(url: &str) -> String {
    Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

/// The host that an answer leads to.
fn leads_to(reply: &Reply, url: &str) -> Option<String> {
    let to = Url::parse(url).ok()?.join(reply.header(LOCATION.as_str())?).ok()?;
    to.host_str().map(plain)
}

/// The title of a page, on one line.
pub(super) fn title(page: &[u8]) -> Option<String> {
    let page = String::from_utf8_lossy(&page[..page.len().min(4096)]);
    // ASCII alone is made small, so that places stay.
    let small = page.to_ascii_lowercase();
    let start = small.find("<title")?;
    let start = start + small[start..].find('>')? + 1;
    let end = start + small[start..].find("</title")?;
    let title = page[start..end].split_whitespace().collect::<Vec<_>>().join(" ");
    Some(plain(&title)).filter(|title| !title.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Signature = &["x-forge-request-id"];
    const URL: &str = "https://api.forge.example/orgs/o";

    fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
        let mut reply = Reply::of(status, body.as_bytes());
        reply.headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        reply
    }

    #[test]
    fn the_forge_is_known_by_its_marks_or_its_words() {
        for status in [200, 302, 401, 403, 404, 409, 422, 429, 500, 503] {
            let marked = reply(status, &[("x-forge-request-id", "1")], "<html>unicorn</html>");
            assert_eq!(stranger(&marked, MARKS, URL), None, "{status}");
            let worded = reply(status, &[], r#"{"message":"No."}"#);
            assert_eq!(stranger(&worded, MARKS, URL), None, "{status}");
        }
        for (status, body) in [(200, "[]"), (201, r#"{"token":"x"}"#), (400, r#"{"error_description":"AADSTS"}"#)] {
            assert_eq!(stranger(&reply(status, &[], body), MARKS, URL), None, "{body}");
        }
        for status in [203, 204, 304] {
            assert_eq!(stranger(&reply(status, &[], ""), MARKS, URL), None, "{status}");
        }
    }

    #[test]
    fn pages_blanks_and_others_words_are_somebody_elses() {
        for status in [200, 401, 403, 404, 409, 422, 429, 502] {
            for (body, what) in [
                ("<html><head><TITLE>\n Access   denied\n</title>", "a page for people, \"Access denied\""),
                ("\n <html>blocked</html>", "a page for people"),
                ("", "nothing"),
                ("blocked by policy", "17 bytes of type text/plain"),
            ] {
                let answer = reply(status, &[("content-type", "text/plain")], body);
                assert_eq!(stranger(&answer, MARKS, URL).as_deref(), Some(what), "{status} {body}");
            }
        }
        let other = reply(403, &[], r#"{"error":"blocked","category":"Developer Tools"}"#);
        assert_eq!(stranger(&other, MARKS, URL).as_deref(), Some("48 bytes"));
    }

    #[test]
    fn a_way_within_the_host_is_anybodys_and_one_away_from_it_is_not_the_forges() {
        let to = |location: &str| stranger(&reply(302, &[("location", location)], ""), MARKS, URL);
        assert_eq!(to("/_signin"), None);
        assert_eq!(to("https://api.forge.example/repositories/7"), None);
        assert_eq!(to("http://portal.example/login?mac=1").as_deref(), Some("a way to portal.example"));
    }

    #[test]
    fn where_a_forge_has_no_marks_pages_alone_are_somebody_elses() {
        for body in ["", "gone", "{}"] {
            assert_eq!(stranger(&reply(404, &[], body), &[], URL), None, "{body}");
        }
        assert!(stranger(&reply(404, &[], "<p>"), &[], URL).is_some());
    }
}
