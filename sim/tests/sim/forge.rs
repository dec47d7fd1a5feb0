//! The forge's REST answers, held against GitHub's OpenAPI description, and its faults.

use std::io::{Read as _, Write as _};

use crate::common::{api, api_with, forge};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oscr_sim::forge::{Cut, Fault, ForgeHandle, Match, Scope};
use serde_json::json;

const SCOPES: [&str; 3] = ["/repos/o/r", "/orgs/acme", "/enterprises/big"];

fn assert_contract(forge: &ForgeHandle) {
    assert_eq!(forge.contract_violations(), Vec::<String>::new());
}

fn repo() -> Scope {
    Scope::Repository("o".into(), "r".into())
}

#[test]
fn every_endpoint_answers_as_described_in_all_scopes() {
    let forge = forge();
    for scope in SCOPES {
        for prefix in ["", "/api/v3"] {
            let base = format!("{prefix}{scope}/actions");
            assert_eq!(api(&forge, "POST", &format!("{base}/runners/registration-token"), None).0, 201);
            assert_eq!(api(&forge, "POST", &format!("{base}/runners/remove-token"), None).0, 201);
            let ask = json!({"name": "one", "runner_group_id": 1, "labels": ["self-hosted", "gpu"]});
            let (status, _, made) =
                api(&forge, "POST", &format!("{base}/runners/generate-jitconfig"), Some(ask.clone()));
            assert_eq!(status, 201);
            let id = &made["runner"]["id"];
            assert_eq!(api(&forge, "POST", &format!("{base}/runners/generate-jitconfig"), Some(ask)).0, 409);
            let (status, _, list) = api(&forge, "GET", &format!("{base}/runners?name=one&per_page=100&page=1"), None);
            assert_eq!((status, &list["total_count"]), (200, &json!(1)));
            let (_, _, one) = api(&forge, "GET", &format!("{base}/runners/{id}"), None);
            assert_eq!((&one["status"], &one["busy"]), (&json!("offline"), &json!(false)));
            assert_eq!(api(&forge, "GET", &format!("{base}/runners/downloads"), None).0, 200);
            let groups = api(&forge, "GET", &format!("{base}/runner-groups"), None).0;
            assert_eq!(groups, if scope.starts_with("/repos") { 404 } else { 200 });
            assert_eq!(api(&forge, "DELETE", &format!("{base}/runners/{id}"), None).0, 204);
            assert_eq!(api(&forge, "DELETE", &format!("{base}/runners/{id}"), None).0, 404);
            assert_eq!(api(&forge, "GET", &format!("{base}/runners/{id}"), None).0, 404);
        }
    }
    assert_eq!(api(&forge, "GET", "/rate_limit", None).0, 200);
    let broken = forge.contract_violations();
    // Repositories have no groups: GitHub does not describe that request.
    assert!(broken.iter().all(|v| v.contains("/repos/o/r/actions/runner-groups: no such operation")), "{broken:#?}");
}

#[test]
fn a_request_that_breaks_the_contract_is_noticed() {
    let forge = forge();
    let path = "/orgs/acme/actions/runners/generate-jitconfig";
    let (status, _, _) = api(&forge, "POST", path, Some(json!({"name": "x", "runner_group_id": "1", "labels": []})));
    assert_eq!(status, 422);
    let _ = api_with(&forge, "GET", "/orgs/acme/actions/runners?nme=x", None, &[]);
    let broken = forge.contract_violations().join("\n");
    for part in ["request.runner_group_id", "minItems", "unknown query parameter nme"] {
        assert!(broken.contains(part), "{part}: {broken}");
    }
}

#[test]
fn credentials_and_scopes_are_refused_as_github_does() {
    let forge = forge();
    forge.order(|o| {
        o.deny.insert("orgs/closed".into(), 403);
        o.deny.insert("orgs/hidden".into(), 404);
    });
    let wrong = [("authorization", "Bearer wrong")];
    let (status, _, body) = api_with(&forge, "GET", "/orgs/acme/actions/runners", None, &wrong);
    assert_eq!((status, &body["message"]), (401, &json!("Bad credentials")));
    assert_eq!(api(&forge, "GET", "/orgs/closed/actions/runners", None).0, 403);
    assert_eq!(api(&forge, "GET", "/orgs/hidden/actions/runners", None).0, 404);
    assert_contract(&forge);
    let records = serde_json::to_string(&forge.requests()).expect("records are JSON");
    assert!(!records.contains("wrong") && !records.contains(&forge.pat()), "{records}");
}

#[test]
fn lists_have_pages_with_links() {
    let forge = forge();
    for n in 0..5 {
        let _ = forge.plant_runner(&repo(), &format!("r{n}"), true);
    }
    let (_, headers, page) = api(&forge, "GET", "/repos/o/r/actions/runners?per_page=2&page=2", None);
    assert_eq!((&page["total_count"], &page["runners"][0]["name"]), (&json!(5), &json!("r2")));
    let link = headers["link"].to_str().expect("text");
    for part in ["page=3>; rel=\"next\"", "page=1>; rel=\"prev\"", "page=3>; rel=\"last\"", "page=1>; rel=\"first\""] {
        assert!(link.contains(part), "{link}");
    }
    assert_contract(&forge);
}

#[test]
fn an_unchanged_answer_is_304_and_costs_no_quota() {
    let forge = forge();
    let (_, first, _) = api(&forge, "GET", "/repos/o/r/actions/runners", None);
    let tag = first["etag"].to_str().expect("text");
    let (status, second, _) = api_with(&forge, "GET", "/repos/o/r/actions/runners", None, &[("if-none-match", tag)]);
    assert_eq!(status, 304);
    assert_eq!(forge.orders().rate_used, 1);
    assert_eq!(second["x-ratelimit-limit"], "5000");
    assert_contract(&forge);
}

#[test]
fn a_used_up_quota_refuses_and_says_until_when() {
    let forge = forge();
    forge.order(|o| (o.rate_limit, o.rate_used, o.rate_reset_s) = (10, 10, 7));
    let (status, headers, body) = api(&forge, "GET", "/repos/o/r/actions/runners", None);
    assert_eq!((status, &headers["x-ratelimit-remaining"]), (403, &"0".parse().expect("a header")));
    assert!(body["message"].as_str().is_some_and(|m| m.starts_with("API rate limit exceeded")));
    assert_contract(&forge);
}

#[test]
fn a_wrong_clock_shows_in_date_and_expiry() {
    let forge = forge();
    forge.order(|o| o.clock_offset_s = -7200);
    let (_, headers, body) = api(&forge, "POST", "/repos/o/r/actions/runners/registration-token", None);
    let expires: jiff::Timestamp = body["expires_at"].as_str().expect("text").parse().expect("a time");
    let ahead = expires.as_second() - jiff::Timestamp::now().as_second();
    assert!((-3605..=-3595).contains(&ahead), "{ahead}");
    let date = jiff::fmt::rfc2822::parse(headers["date"].to_str().expect("text")).expect("a date");
    let behind = jiff::Timestamp::now().as_second() - date.timestamp().as_second();
    assert!((7195..=7205).contains(&behind), "{behind}");
}

#[test]
fn a_jit_configuration_holds_the_agents_files() {
    let forge = forge();
    let ask = json!({"name": "jit", "runner_group_id": 1, "labels": ["x"], "work_folder": "/work"});
    let (_, _, made) = api(&forge, "POST", "/orgs/acme/actions/runners/generate-jitconfig", Some(ask));
    let map = BASE64.decode(made["encoded_jit_config"].as_str().expect("text")).expect("base64");
    let map: std::collections::BTreeMap<String, String> = serde_json::from_slice(&map).expect("a map");
    let names: Vec<&str> = map.keys().map(String::as_str).collect();
    assert_eq!(names, [".credentials", ".credentials_rsaparams", ".runner"]);
    let runner = BASE64.decode(&map[".runner"]).expect("base64");
    let runner: serde_json::Value = serde_json::from_slice(&runner).expect("JSON");
    assert_eq!(runner["WorkFolder"], "/work");
    assert!(runner.get("GitHubUrl").is_none());
}

/// All bytes of the answer to a plain GET, until the connection ends.
fn raw(forge: &ForgeHandle) -> String {
    let mut stream = std::net::TcpStream::connect(forge.address()).expect("it listens");
    let pat = forge.pat();
    write!(
        stream,
        "GET /repos/o/r/actions/runners HTTP/1.1\r\nHost: f\r\nUser-Agent: t\r\nConnection: close\r\n\
         Authorization: Bearer {pat}\r\n\r\n"
    )
    .expect("it reads");
    let mut bytes = Vec::new();
    // A reset counts as an end here.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn connections_are_cut_where_ordered() {
    let forge = forge();
    for (cut, wanted) in [(Cut::Before, 0), (Cut::After, 0), (Cut::Headers, 20)] {
        forge.add_fault(Fault { cut: Some(cut), times: Some(1), ..Fault::default() });
        assert_eq!(raw(&forge).len(), wanted, "{cut:?}");
    }
    forge.add_fault(Fault { cut: Some(Cut::Body), times: Some(1), ..Fault::default() });
    let cut = raw(&forge);
    let whole = raw(&forge);
    assert!(cut.contains("\r\n\r\n{") && cut.len() < whole.len(), "{cut}");
    forge.add_fault(Fault { truncate: true, times: Some(1), ..Fault::default() });
    let (_, body) = raw(&forge).split_once("\r\n\r\n").map(|(h, b)| (h.to_owned(), b.to_owned())).expect("a head");
    assert!(serde_json::from_str::<serde_json::Value>(&body).is_err(), "{body}");
}

#[test]
fn a_fault_meets_only_what_it_names_and_only_so_often() {
    let forge = forge();
    forge.add_fault(Fault {
        matching: Match { method: Some("post".into()), path_contains: Some("registration".into()), ..Match::default() },
        times: Some(1),
        skip: 1,
        status: Some(429),
        headers: [("Retry-After".into(), "3".into())].into(),
        ..Fault::default()
    });
    let path = "/repos/o/r/actions/runners/registration-token";
    assert_eq!(api(&forge, "GET", "/repos/o/r/actions/runners", None).0, 200);
    assert_eq!(api(&forge, "POST", path, None).0, 201);
    let (status, headers, _) = api(&forge, "POST", path, None);
    assert_eq!((status, &headers["retry-after"]), (429, &"3".parse().expect("a header")));
    assert_eq!(api(&forge, "POST", path, None).0, 201);
    assert_eq!(forge.requests().iter().filter(|r| r.fault).count(), 1);
}

#[test]
fn a_forge_that_went_down_comes_back_with_what_it_knew() {
    let forge = forge();
    let _ = forge.plant_runner(&repo(), "old", true);
    forge.go_down();
    assert!(std::net::TcpStream::connect(forge.address()).is_err());
    forge.come_back().expect("its port is free");
    assert_eq!(api(&forge, "GET", "/repos/o/r/actions/runners", None).2["total_count"], 1);
}

#[test]
fn the_control_plane_takes_jobs_orders_and_faults() {
    let forge = forge();
    let (status, _, job) = api(&forge, "POST", "/_sim/jobs", Some(json!({"name": "a", "script": "true"})));
    assert_eq!(status, 201);
    let (_, _, job) = api(&forge, "GET", &format!("/_sim/jobs/{}", job["id"]), None);
    assert_eq!((&job["status"], &job["name"]), (&json!("queued"), &json!("a")));
    assert_eq!(api(&forge, "POST", "/_sim/orders", Some(json!({"ephemeral_removal": "assignment"}))).0, 204);
    assert_eq!(api(&forge, "POST", "/_sim/orders", Some(json!({"no_such_order": 1}))).0, 400);
    assert_eq!(api(&forge, "POST", "/_sim/faults", Some(json!({"match": {"method": "GET"}, "status": 500}))).0, 201);
    assert_eq!(api(&forge, "GET", "/repos/o/r/actions/runners", None).0, 500);
    assert_eq!(api(&forge, "DELETE", "/_sim/faults", None).0, 204);
    assert_eq!(api(&forge, "GET", "/_sim/wait?runners=0&timeout=1", None).0, 200);
    assert_eq!(api(&forge, "GET", "/_sim/wait?runners=1&timeout=0", None).0, 408);
    let (_, _, requests) = api(&forge, "GET", "/_sim/requests", None);
    assert_eq!(requests.as_array().map(Vec::len), Some(1));
}
