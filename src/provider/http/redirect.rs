//! Redirects, which the client never follows by itself: whoever asks decides, and no credential goes to another origin.

use reqwest::Url;

use super::reply::Reply;

impl Reply {
    /// Whether it leads elsewhere.
    #[must_use]
    pub fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 307 | 308)
    }

    /// Where it leads from the address that was `asked`, if that is at the same origin.
    #[must_use]
    pub fn leads_on(&self, asked: &str) -> Option<Url> {
        let asked = Url::parse(asked).ok()?;
        let target = asked.join(self.header("location").filter(|_| self.is_redirect())?).ok()?;
        let nameless = target.username().is_empty() && target.password().is_none();
        (target.origin() == asked.origin() && nameless).then_some(target)
    }

    /// Where it leads, for people: without what may be a secret.
    #[must_use]
    pub fn place(&self) -> String {
        let place = self.header("location").unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
        let credential =
            place.split("://").nth(1).is_some_and(|rest| rest.split('/').next().unwrap_or(rest).contains('@'));
        if place.is_empty() || credential { "another address".to_owned() } else { place.chars().take(200).collect() }
    }
}

/// An address without its query, which may hold what opens it.
pub(super) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_on_at_the_same_origin_alone() {
        let asked = "https://api.github.com/repos/o/r/actions/runners/7";
        let leads = |status, location| Reply::leading(status, location).leads_on(asked).map(|url| url.to_string());
        let there = "https://api.github.com/repositories/1/actions/runners/7";
        for status in [301, 302, 307, 308] {
            assert_eq!(leads(status, there).as_deref(), Some(there));
            assert_eq!(leads(status, "/repositories/1/actions/runners/7").as_deref(), Some(there));
        }
        assert_eq!(leads(200, there), None);
        for elsewhere in [
            "http://api.github.com/repositories/1",
            "https://api.github.com:8443/repositories/1",
            "https://api.github.com.example/repositories/1",
            "https://github.com/repositories/1",
            "//example/repositories/1",
            "https://user:word@api.github.com/repositories/1",
            "https://",
        ] {
            assert_eq!(leads(301, elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn a_place_is_told_without_its_secrets() {
        assert_eq!(Reply::leading(302, "https://x/a?sig=secret#b").place(), "https://x/a");
        assert_eq!(Reply::leading(302, "https://user:word@x/a").place(), "another address");
        assert_eq!(Reply::leading(302, "/a@b").place(), "/a@b");
        assert_eq!(Reply::of(301, b"").place(), "another address");
    }
}
