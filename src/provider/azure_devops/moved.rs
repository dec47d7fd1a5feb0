//! An organisation or a collection that has another name by now.

use reqwest::Url;

use crate::provider::http::Reply;

/// The organisation's or collection's address, and that of what was `asked` for, where a reply leads on to the same thing below
/// another name at the same origin.
pub(super) fn renamed(reply: &Reply, asked: &str) -> Option<(String, String)> {
    const API: &str = "/_apis/";
    let target = reply.leads_on(asked)?;
    let asked = Url::parse(asked).ok()?;
    let (place, same) = target.path().split_once(API)?;
    let (before, wanted) = asked.path().split_once(API)?;
    let query = target.query().is_none_or(|query| asked.query() == Some(query));
    if reply.status == 302 || same != wanted || !query || place == before {
        return None;
    }
    let place = format!("{}{place}", target.origin().ascii_serialization());
    let query = asked.query().map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{place}{API}{same}{query}");
    Some((place, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_thing_below_another_name_at_the_same_origin_is_gone_after() {
        let asked = "https://dev.azure.com/old/_apis/distributedtask/pools/7/agents/3?api-version=5.1";
        let leads = |status, location: &str| renamed(&Reply::leading(status, location), asked);
        let good = "https://dev.azure.com/new/_apis/distributedtask/pools/7/agents/3";
        let there = ("https://dev.azure.com/new".to_owned(), format!("{good}?api-version=5.1"));
        for status in [301, 307, 308] {
            assert_eq!(leads(status, good), Some(there.clone()));
            assert_eq!(leads(status, &there.1), Some(there.clone()));
        }
        assert_eq!(leads(302, good), None, "a way to sign in");
        for elsewhere in [
            "https://dev.azure.com/old/_apis/distributedtask/pools/7/agents/3",
            "https://dev.azure.com/new/_apis/distributedtask/pools/7/agents/4",
            "https://dev.azure.com/new/_apis/distributedtask/pools/8/agents/3",
            "https://dev.azure.com/new/_apis/distributedtask/pools/7/agents/3?other=1",
            "https://dev.azure.com/_signin",
            "https://new.visualstudio.com/_apis/distributedtask/pools/7/agents/3",
            "http://dev.azure.com/new/_apis/distributedtask/pools/7/agents/3",
        ] {
            assert_eq!(leads(301, elsewhere), None, "{elsewhere}");
        }
    }
}
