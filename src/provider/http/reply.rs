//! A reply, and what those of any forge have in common.

use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::plain::disturbs;
use crate::provider::fault::Fault;

/// An answer that is neither a transport fault, nor a rate limit, nor a fault of the server.
#[derive(Debug)]
pub struct Reply {
    /// The status code: below 500 and not 429.
    pub status: u16,
    pub(super) headers: HeaderMap,
    /// How many requests are left, if the forge counts them.
    pub left: Option<u64>,
    /// It may hold a token.
    pub(super) body: Zeroizing<Vec<u8>>,
}

#[cfg(test)]
impl Reply {
    /// An answer, for tests of what is made of it.
    pub fn of(status: u16, body: &[u8]) -> Self {
        Self { status, headers: HeaderMap::new(), left: None, body: Zeroizing::new(body.to_vec()) }
    }

    /// One that leads elsewhere.
    pub fn leading(status: u16, location: &str) -> Self {
        let mut reply = Self::of(status, b"");
        reply.headers.insert("location", location.parse().unwrap());
        reply
    }
}

impl Reply {
    /// The answer as JSON.
    ///
    /// # Errors
    /// [`Fault::Unreachable`]: what answered is most likely not the forge.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        // The error itself would quote what it did not expect, and that may be a token.
        serde_json::from_slice(&self.body).map_err(|error| {
            let (status, length) = (self.status, self.body.len());
            let at = format!("line {}, column {}", error.line(), error.column());
            Fault::Unreachable(format!("the answer ({status}, {length} bytes) is not the expected JSON from {at} on"))
        })
    }

    /// A header's value, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// Whether it is a page for people, as a proxy or a portal puts in the place of an answer.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    /// Whether the forge says that it did what it was asked. What it says beside that may be a secret, and is never quoted.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The forge's own words about an error, on one line and not too many.
    #[must_use]
    pub fn message(&self) -> String {
        if self.is_success() {
            return String::new();
        }
        let text = match serde_json::from_slice(&self.body).ok().as_ref().and_then(words_in) {
            Some(message) => message,
            None if self.is_page() || self.body.is_empty() => self.header_words(),
            None => String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned(),
        };
        one_line(&text)
    }
}

/// What an answer in JSON says about an error, with what it says of each part of it.
pub(super) fn words_in(answer: &serde_json::Value) -> Option<String> {
    let message = answer["message"].as_str().or(answer["error_description"].as_str())?;
    let parts = answer["errors"].as_array().into_iter().flatten().take(3);
    let parts: Vec<&str> = parts.filter_map(|part| part.as_str().or(part["message"].as_str())).collect();
    Some(if parts.is_empty() { message.to_owned() } else { format!("{message}: {}", parts.join("; ")) })
}

/// Words of others, on one line and not too many.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if disturbs(c) { ' ' } else { c }).take(300).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(Reply::of(404, br#"{"message":"Not\nFound"}"#).message(), "Not Found");
        assert!(Reply::of(404, &[b'x'; 10_000]).message().len() <= 300);
    }

    #[test]
    fn what_a_success_holds_is_quoted_by_nobody() {
        for status in [200, 201, 202, 203, 204, 206, 299] {
            for body in
                [r#"{"token":"a-token"}"#, r#"{"message":"a-token"}"#, "a-token", r#""a-token""#, "[\"a-token\"]"]
            {
                let reply = Reply::of(status, body.as_bytes());
                let error = reply.json::<Vec<u8>>().unwrap_err().to_string();
                assert!(!format!("{} {error}", reply.message()).contains("a-token"), "{error}");
                assert!(error.contains(&status.to_string()), "{error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_each_part_is_said() {
        let body =
            br#"{"message":"Validation Failed","errors":["the label is too long",{"message":"no such group"},{}]}"#;
        assert_eq!(Reply::of(422, body).message(), "Validation Failed: the label is too long; no such group");
    }
}
