//! The payload of an event, as GitHub wrote it: whose work a job is about.

use serde::Deserialize;

use crate::plain::plain;
use crate::policy::{Facts, Origin, Whose};
use crate::provider::agents::read_json;

/// The parts of a payload that matter. A field that is there twice is an error.
#[derive(Debug, Deserialize)]
struct Payload {
    repository: Option<Repository>,
    pull_request: Option<PullRequest>,
    workflow_run: Option<WorkflowRun>,
    issue: Option<Issue>,
    comment: Option<Comment>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Debug, Deserialize)]
struct PullRequest {
    head: Side,
    base: Side,
}

#[derive(Debug, Deserialize)]
struct Side {
    /// Null once the repository has been deleted.
    repo: Option<Repository>,
}

#[derive(Debug, Deserialize)]
struct WorkflowRun {
    head_repository: Option<Repository>,
}

#[derive(Debug, Deserialize)]
struct Issue {
    /// There if the issue is a pull request.
    pull_request: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Comment {
    #[serde(default)]
    author_association: String,
}

/// What GitHub calls people who may change the repository, or were asked to work on it.
const INSIDERS: &[&str] = &["OWNER", "MEMBER", "COLLABORATOR"];

/// Reads a payload.
///
/// # Errors
/// Why it makes no sense.
pub(super) fn origin(facts: &Facts, payload: &[u8]) -> Result<Origin, String> {
    let payload: Payload = read_json(payload).map_err(|error| error.to_string())?;
    let (event, repository) = (facts.event.as_deref(), facts.repository.as_deref());
    let work = work(event.unwrap_or_default(), repository.unwrap_or_default(), &payload);
    Ok(Origin { repository: payload.repository.map(|named| named.full_name), work })
}

/// Whose work an event of this payload is about.
fn work(event: &str, repository: &str, payload: &Payload) -> Whose {
    let outside = |head: Option<&Repository>, base: &str| match head {
        None => Some("a fork that has been deleted".to_owned()),
        Some(head) if !head.full_name.eq_ignore_ascii_case(base) => {
            Some(format!("the fork {}", plain(&head.full_name)))
        }
        Some(_) => None,
    };
    match &payload.pull_request {
        Some(pull) => {
            // `pull_request_target` runs the base's workflow, but with the fork's text at hand, and often with its code.
            let base = pull.base.repo.as_ref().filter(|base| base.full_name.eq_ignore_ascii_case(repository));
            let Some(base) = base else {
                return Whose::Unclear("the pull request is one to another repository".to_owned());
            };
            if let Some(fork) = outside(pull.head.repo.as_ref(), &base.full_name) {
                return Whose::Outside(format!("this job ({event}) is for a pull request from {fork}"));
            }
        }
        None if event.starts_with("pull_request") => {
            return Whose::Unclear("the payload of a pull request's event holds no pull request".to_owned());
        }
        None => {}
    }
    match &payload.workflow_run {
        Some(run) => {
            if let Some(fork) = outside(run.head_repository.as_ref(), repository) {
                return Whose::Outside(format!("this job ({event}) follows a workflow run for {fork}"));
            }
        }
        None if event == "workflow_run" => {
            return Whose::Unclear("the payload of a workflow run's event holds no run".to_owned());
        }
        None => {}
    }
    // A comment starts the default branch's workflow, which may fetch the pull request that was commented on. Where that comes
    // from is not in the payload, so it depends on who commented.
    let on_pull_request = payload.issue.as_ref().is_some_and(|issue| issue.pull_request.is_some());
    if let (true, Some(comment)) = (on_pull_request, &payload.comment)
        && !INSIDERS.contains(&comment.author_association.as_str())
    {
        return Whose::Outside(format!(
            "this job ({event}) is for a comment on a pull request by somebody from outside ({})",
            if comment.author_association.is_empty() {
                "unknown".to_owned()
            } else {
                plain(&comment.author_association)
            }
        ));
    }
    Whose::Own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Dice;
    use crate::policy::{Denial, Evidence, LONGEST, Pattern, Policy};
    use serde_json::{Value, json};

    fn evidence(event: &str, payload: &Value) -> Evidence {
        let facts = Facts {
            event: Some(event.to_owned()),
            repository: Some("o/r".to_owned()),
            reference: Some("refs/heads/main".to_owned()),
        };
        Evidence { facts, payload: Some(Ok(payload.to_string().into_bytes())) }
    }

    fn pull(head: Value) -> Value {
        json!({ "repository": { "full_name": "o/r" },
                "pull_request": { "number": 7, "head": { "sha": "a", "repo": head }, "base": { "repo": { "full_name": "o/r" } } } })
    }

    fn word(policy: &Policy, evidence: &Evidence) -> &'static str {
        match policy.judge(evidence, origin) {
            Ok(()) => "ok",
            Err(Denial::Fork(_)) => "fork",
            Err(Denial::Unlisted { .. }) => "unlisted",
            Err(Denial::Unclear(_)) => "unclear",
        }
    }

    #[test]
    fn work_from_forks_is_told_from_work_of_the_repository() {
        let fork = || json!({ "full_name": "evil/r" });
        let own = || json!({ "full_name": "O/R" });
        let comment = |association: &str, on: Value| json!({ "issue": { "pull_request": on }, "comment": { "author_association": association } });
        let on_pull = || json!({ "url": "https://api.github.com/repos/o/r/pulls/7" });
        let run = |head: Value| json!({ "workflow_run": { "event": "pull_request", "head_repository": head } });
        let other_base = json!({ "pull_request": { "head": { "repo": own() }, "base": { "repo": fork() } } });
        for (event, payload, wanted) in [
            ("push", json!({}), "ok"),
            ("push", json!({ "ref": "refs/heads/main", "repository": { "full_name": "o/r", "fork": true } }), "ok"),
            ("schedule", json!({ "schedule": "0 0 * * *" }), "ok"),
            ("workflow_dispatch", json!({ "inputs": { "pull_request": pull(fork()) } }), "ok"),
            ("pull_request", pull(own()), "ok"),
            ("pull_request", pull(fork()), "fork"),
            ("pull_request", pull(Value::Null), "fork"),
            ("pull_request_target", pull(fork()), "fork"),
            ("pull_request_review", pull(fork()), "fork"),
            ("pull_request_review_comment", pull(fork()), "fork"),
            ("some_event_of_the_future", pull(fork()), "fork"),
            ("pull_request", json!({}), "unclear"),
            ("pull_request", json!({ "pull_request": null }), "unclear"),
            ("pull_request", json!({ "pull_request": "o/r" }), "unclear"),
            ("pull_request", json!({ "pull_request": { "head": { "repo": own() } } }), "unclear"),
            ("pull_request", other_base, "unclear"),
            ("push", json!({ "repository": { "full_name": "o/other" } }), "unclear"),
            ("workflow_run", run(own()), "ok"),
            ("workflow_run", run(fork()), "fork"),
            ("workflow_run", run(Value::Null), "fork"),
            ("workflow_run", json!({}), "unclear"),
            ("issue_comment", comment("NONE", Value::Null), "ok"),
            ("issue_comment", comment("MEMBER", on_pull()), "ok"),
            ("issue_comment", comment("CONTRIBUTOR", on_pull()), "fork"),
            ("issue_comment", comment("", on_pull()), "fork"),
            ("issue_comment", comment("NONE", json!({})), "fork"),
        ] {
            assert_eq!(word(&Policy::default(), &evidence(event, &payload)), wanted, "{event} {payload}");
            let open = Policy { forks: true, events: Some(vec![Pattern::from("*".to_owned())]), ..Policy::default() };
            let wanted_when_open = if wanted == "fork" { "ok" } else { wanted };
            let seen = word(&open, &evidence(event, &payload));
            assert!(seen == wanted_when_open || (wanted == "unclear" && seen == "ok"), "{event} {payload}: {seen}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_denied_unless_there_is_nothing_to_judge() {
        let mut cases = vec![Evidence::default()];
        for payload in [None, Some(Err("cannot be read".to_owned()))] {
            cases.push(Evidence { payload, ..evidence("push", &json!({})) });
        }
        for bytes in ["", "[]", "{", "null", "{\"pull_request\":null,\"pull_request\":{}}", "{}x"] {
            cases.push(Evidence { payload: Some(Ok(bytes.into())), ..evidence("push", &json!({})) });
        }
        cases.push(Evidence { payload: Some(Ok(b"[".repeat(1 << 20))), ..evidence("push", &json!({})) });
        let mut nameless = evidence("push", &json!({}));
        nameless.facts.repository = Some("o/".repeat(LONGEST));
        cases.push(nameless);
        for case in cases {
            assert_eq!(word(&Policy::default(), &case), "unclear", "{:?}", case.facts);
            assert_eq!(word(&Policy { forks: true, ..Policy::default() }, &case), "ok");
        }
    }

    #[test]
    fn no_change_of_a_payload_lets_a_fork_in_or_brings_the_judge_down() {
        let mut dice = Dice(0xf0f0);
        let fork = pull(json!({ "full_name": "evil/r" })).to_string().into_bytes();
        let pieces =
            ["null", "{}", "\"o/r\"", "[", "]", "}", "\\u0000", "\"head\":{\"repo\":{\"full_name\":\"o/r\"}},", " "];
        for _ in 0..20_000 {
            let mut bytes = fork.clone();
            for _ in 0..=dice.below(3) {
                let at = dice.below(bytes.len());
                match dice.below(3) {
                    0 => bytes.truncate(at),
                    1 => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
                    _ => {
                        let piece = pieces[dice.below(pieces.len())];
                        bytes.splice(at..at, piece.bytes());
                    }
                }
                if bytes.is_empty() {
                    break;
                }
            }
            // What still says that the head is another repository, or says nothing, is not let in.
            let says: Option<Value> = serde_json::from_slice(&bytes).ok();
            let head = says.as_ref().and_then(|says| says["pull_request"]["head"]["repo"]["full_name"].as_str());
            let mut evidence = evidence("pull_request", &Value::Null);
            evidence.payload = Some(Ok(bytes.clone()));
            if Policy::default().judge(&evidence, origin).is_ok() {
                assert!(
                    head.is_some_and(|head| head.eq_ignore_ascii_case("o/r")),
                    "{}",
                    String::from_utf8_lossy(&bytes)
                );
            }
        }
    }

    #[test]
    fn fuzz_payload() {
        let strict = Policy::default();
        let open = Policy { forks: true, ..Policy::default() };
        let events = ["push", "pull_request", "pull_request_target", "workflow_run", "issue_comment", "schedule"];
        crate::fuzz::run("payload", |bytes| {
            let kinds = events.map(|event| {
                let facts = Facts {
                    event: Some(event.to_owned()),
                    repository: Some("o/r".to_owned()),
                    reference: Some("refs/heads/main".to_owned()),
                };
                let evidence = Evidence { facts, payload: Some(Ok(bytes.to_vec())) };
                let judged = strict.judge(&evidence, origin);
                // Whoever lets forks in denies no more than whoever does not.
                assert!(judged.is_err() || open.judge(&evidence, origin).is_ok());
                judged.map_err(|denial| {
                    crate::fuzz::assert_plain(&denial.to_string());
                    assert!(denial.to_string().len() < 4096);
                    std::mem::discriminant(&denial)
                })
            });
            // What is no object says nothing about where a job comes from.
            assert!(bytes.trim_ascii_start().first() == Some(&b'{') || kinds.iter().all(Result::is_err));
            kinds
        });
    }
}
