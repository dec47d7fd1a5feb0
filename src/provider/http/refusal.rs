//! What a forge says about a refusal beside its number: its words in a header, an address for people, and what an agent that was
//! refused repeats of it.

use serde_json::Value;

use super::limits::speaks_of_limit;
use super::reply::{Reply, one_line, words_in};

/// The longest address that is shown.
const LONGEST: usize = 400;

impl Reply {
    /// An address at which the forge says more, for people.
    #[must_use]
    pub fn address(&self) -> Option<String> {
        if self.is_success() {
            return None;
        }
        // `required; url=https://…`: where a token is authorised for an organisation's single sign-on.
        let sign_on = self.header("x-github-sso").and_then(|header| header.split_once("url=")).map(|(_, url)| url);
        match sign_on {
            Some(url) => shown(url),
            None => address_in(&serde_json::from_slice(&self.body).ok()?),
        }
    }

    /// The words that Azure DevOps puts into a header where it answers with a page, or with nothing.
    pub(super) fn header_words(&self) -> String {
        let words = self.header("x-tfs-serviceerror").unwrap_or_default();
        let pair = format!("words={words}");
        let decoded = reqwest::Url::parse(&format!("http://x/?{pair}")).ok();
        let decoded = decoded.and_then(|url| url.query_pairs().next().map(|(_, words)| words.into_owned()));
        decoded.unwrap_or_default()
    }
}

fn address_in(answer: &Value) -> Option<String> {
    let member = |name: &str| answer[name].as_str();
    shown(answer["block"]["html_url"].as_str().or(member("documentation_url")).or(member("error_uri"))?)
}

/// An address, if it is one that can be shown.
fn shown(address: &str) -> Option<String> {
    let address = address.split(';').next()?.trim();
    let web = address.starts_with("https://") || address.starts_with("http://");
    let plain = address.bytes().all(|byte| byte.is_ascii_graphic()) && !address.contains('@');
    (web && plain && address.len() <= LONGEST).then(|| address.to_owned())
}

/// What a forge answered to an agent, as far as the agent repeats it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repeated {
    /// The number of its answer.
    pub status: Option<u16>,
    /// Its words.
    pub words: String,
    /// An address at which it says more.
    pub address: Option<String>,
}

impl Repeated {
    /// Reads an agent's last words, oldest first: the last answer that they hold.
    #[must_use]
    pub fn in_words(said: &[String]) -> Self {
        let answers = || said.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        let answer = answers().find(|answer| answer["message"].is_string());
        let status = said.iter().rev().find_map(|line| number_after(line, "does not indicate success: "));
        let told = answer.as_ref().and_then(|answer| answer["status"].as_str()?.parse().ok());
        Self {
            status: status.or(told),
            words: answer.as_ref().and_then(words_in).map(|words| one_line(&words)).unwrap_or_default(),
            address: answer.as_ref().and_then(address_in),
        }
    }

    /// What failed, with where the forge says more.
    #[must_use]
    pub fn told(&self, what: &str) -> String {
        self.address.as_ref().map_or_else(|| what.to_owned(), |address| format!("{what}; see {address}"))
    }

    /// Whether the forge limits how often it is asked.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        self.status == Some(429) || speaks_of_limit(&self.words)
    }
}

/// The number of three digits that follows these words in a line.
fn number_after(line: &str, words: &str) -> Option<u16> {
    let (_, rest) = line.split_once(words)?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(name: &'static str, value: &str, body: &[u8]) -> Reply {
        let mut reply = Reply::of(403, body);
        reply.headers.insert(name, value.parse().unwrap());
        reply
    }

    #[test]
    fn the_address_for_people_is_found_wherever_it_stands() {
        let body = br#"{"message":"no","documentation_url":"https://docs.github.com/rest"}"#;
        assert_eq!(Reply::of(403, body).address().as_deref(), Some("https://docs.github.com/rest"));
        let required = "required; url=https://github.com/orgs/acme/sso?authorization_request=abc";
        let address = with_header("x-github-sso", required, body).address();
        assert_eq!(address.as_deref(), Some("https://github.com/orgs/acme/sso?authorization_request=abc"));
        let blocked = br#"{"message":"blocked","block":{"html_url":"https://github.com/github/dmca/1"}}"#;
        assert_eq!(Reply::of(451, blocked).address().as_deref(), Some("https://github.com/github/dmca/1"));
        for odd in ["javascript:alert(1)", "https://x/ y", "https://user:word@x/", "", "https://\u{1b}[2J"] {
            let body = serde_json::json!({"message": "no", "documentation_url": odd}).to_string();
            assert_eq!(Reply::of(403, body.as_bytes()).address(), None, "{odd}");
        }
        assert_eq!(Reply::of(200, body).address(), None);
    }

    #[test]
    fn words_in_a_header_stand_for_those_of_a_page() {
        let words = "TF400813%3A+The+user+%27x%27+is+not+authorized+to+access+this+resource.";
        let page = with_header("x-tfs-serviceerror", words, b"<!DOCTYPE html><html></html>");
        assert_eq!(page.message(), "TF400813: The user 'x' is not authorized to access this resource.");
        assert_eq!(Reply::of(403, b"<html></html>").message(), "");
    }

    #[test]
    fn what_an_agent_repeats_is_read_as_the_answer_itself() {
        let said = [
            "Http response code: Forbidden from 'POST https://api.github.com/actions/runner-registration'",
            r#"{"message":"API rate limit exceeded for installation ID 1.","documentation_url":"https://docs.github.com/r"}"#,
            "Response status code does not indicate success: 403 (Forbidden).",
        ]
        .map(str::to_owned);
        let heard = Repeated::in_words(&said);
        assert_eq!((heard.status, heard.address.as_deref()), (Some(403), Some("https://docs.github.com/r")));
        assert!(heard.is_limit() && heard.words == "API rate limit exceeded for installation ID 1.");
        let heard = Repeated::in_words(&[r#"{"message":"Not Found","status":"404"}"#.to_owned()]);
        assert!(heard.status == Some(404) && !heard.is_limit());
        assert_eq!(Repeated::in_words(&["success: soon".to_owned(), "{}".to_owned()]), Repeated::default());
        assert!(Repeated::in_words(&["does not indicate success: 429 (Too Many Requests).".to_owned()]).is_limit());
    }
}
