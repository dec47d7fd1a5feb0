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
}

impl Reply {
    /// The answer as JSON.
    ///
    /// # Errors
    /// [`Fault::Unreachable`]: what answered is most likely not the forge.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Fault::Unreachable(format!("the answer ({} bytes) is not the expected JSON: {error}", self.body.len()))
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

    /// The forge's own words about an error, on one line and not too many.
    #[must_use]
    pub fn message(&self) -> String {
        let value: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let text =
            match value.as_ref().and_then(|value| value["message"].as_str().or(value["error_description"].as_str())) {
                Some(message) => message.to_owned(),
                None if self.is_page() => String::new(),
                None => String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned(),
            };
        text.chars().map(|c| if disturbs(c) { ' ' } else { c }).take(300).collect::<String>().trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_short_line() {
        assert_eq!(Reply::of(404, br#"{"message":"Not\nFound"}"#).message(), "Not Found");
        assert!(Reply::of(404, &[b'x'; 10_000]).message().len() <= 300);
    }
}
