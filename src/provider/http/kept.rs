//! The last answers, which can be asked for again by their tag: a forge that has nothing new to say does not count the request.

use std::cell::RefCell;
use std::collections::VecDeque;

use reqwest::header::HeaderValue;

/// How many answers are kept to ask whether they still hold, and the longest that is kept, in bytes.
const KEPT_ANSWERS: usize = 4;
const LONGEST_KEPT: usize = 16 * 1024;

/// Some answers, the last one first.
#[derive(Debug, Default)]
pub(super) struct Answers(RefCell<VecDeque<KeptAnswer>>);

/// An answer, and what its server calls this state of it.
#[derive(Debug)]
struct KeptAnswer {
    url: String,
    tag: HeaderValue,
    body: Vec<u8>,
}

impl Answers {
    /// The tag and the body of the last answer to this request.
    pub(super) fn find(&self, url: &str) -> Option<(HeaderValue, Vec<u8>)> {
        self.0.borrow().iter().find(|kept| kept.url == url).map(|kept| (kept.tag.clone(), kept.body.clone()))
    }

    /// Keeps an answer, in the place of an older one to the same request.
    pub(super) fn keep(&self, url: &str, tag: HeaderValue, body: &[u8]) {
        let mut all = self.0.borrow_mut();
        all.retain(|kept| kept.url != url);
        // A damaged answer, once kept, would be the answer for as long as the forge has nothing new to say.
        let whole = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        if whole && body.len() <= LONGEST_KEPT {
            all.truncate(KEPT_ANSWERS - 1);
            all.push_front(KeptAnswer { url: url.to_owned(), tag, body: body.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_short_answers_are_kept() {
        let answers = Answers::default();
        let tag = || HeaderValue::from_static("\"1\"");
        for number in 0..20 {
            answers.keep(&format!("http://forge/{number}"), tag(), b"{}");
        }
        answers.keep("http://forge/19", tag(), b"{\"new\":1}");
        assert_eq!(answers.0.borrow().len(), KEPT_ANSWERS);
        assert_eq!(answers.find("http://forge/19").unwrap().1, b"{\"new\":1}");
        assert!(answers.find("http://forge/0").is_none());
        answers.keep("http://forge/19", tag(), format!("{{{}}}", " ".repeat(LONGEST_KEPT)).as_bytes());
        assert!(answers.find("http://forge/19").is_none(), "an old answer must not stand for a new one");
        answers.keep("http://forge/19", tag(), b"{\"new\":");
        assert!(answers.find("http://forge/19").is_none(), "half an answer must not stand for a whole one");
    }
}
