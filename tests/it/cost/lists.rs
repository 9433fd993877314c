//! Lists with far more items than they may have: they are refused, and no more of them is held than
//! shows that.

use super::{memory_floor, patient};
use crate::rig::http::{Call, Version};
use crate::rig::talos::{IMPORTED, ISSUED, VERIFY};

/// Bytes of a list.
const LIST: usize = 2 * 1024 * 1024;
const CHECK: &str = "/v2alpha1/admin/policies:check";

/// Returns the path of each operation, its body up to a list, an item of the list, the rest of the
/// body, and how the refusal begins.
fn lists() -> [(String, &'static str, &'static str, &'static str, &'static str); 9] {
    let issued = || ISSUED.to_owned();
    let scopes = r#"{"name":"n","actor_id":"a","scopes":["#;
    let blocks = r#"{"name":"n","actor_id":"a","ip_restriction":{"allowed_cidrs":["#;
    let limits = r#"{"name":"n","actor_id":"a","rate_limit_policies":["#;
    let verify_batch = "/v2alpha1/admin/apiKeys:batchVerify".to_owned();
    let pattern = r#"{"name":"a","name_pattern":"a"}"#;
    let members = r#"{"issuance_policies":[{"name":"a","required_metadata":["#;
    let limit = r#"{"name":"a","quota":"1","window":"1s"}"#;
    [
        (issued(), scopes, r#""""#, "]}", "scopes: must be 100 scopes at most"),
        (issued(), blocks, r#""""#, "]}}", "ip_restriction.allowed_cidrs: must be 100 CIDR blocks at most"),
        (issued(), limits, limit, "]}", "rate_limit_policies"),
        (VERIFY.to_owned(), r#"{"expected_audiences":["#, r#""""#, "]}", "expected_audiences: must be 1000"),
        (
            CHECK.to_owned(),
            members,
            r#""""#,
            "]}]}",
            "issuance_policies[0].required_metadata: must be 32 names",
        ),
        (
            CHECK.to_owned(),
            r#"{"issuance_policies":["#,
            pattern,
            "]}",
            "issuance_policies: must be 64 policies",
        ),
        (verify_batch, r#"{"requests":["#, "{}", "]}", "requests: must have 1 to 100 items"),
        (
            format!("{IMPORTED}:batchCreate"),
            r#"{"requests":["#,
            "{}",
            "]}",
            "requests: must have 1 to 1000 items",
        ),
        (
            "/v2alpha1/admin/scopes:preview".to_owned(),
            r#"{"routes":["#,
            "{}",
            "]}",
            "routes: must be 1 to 1000",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn items_beyond_the_limit_of_a_list_take_no_memory() {
    let talos = patient().start().await;
    talos.issue(serde_json::json!({})).await;
    for (path, before_list, item, after_list, start) in lists() {
        let count = LIST / (item.len() + 1);
        let body = [before_list, &vec![item; count].join(","), after_list].concat();
        let call = Call::post(&path).body("application/json", body);
        let before = talos.process.memory();
        talos.process.forget_peak();
        let problem = talos.admin.send(Version::Http1, call).await.expect_bad_request();
        let growth = talos.process.peak_memory().saturating_sub(before);
        assert!(problem.starts_with(start), "{path}: {problem}");
        println!("{path}, {count} times {item}: {} KiB more", growth / 1024);
        assert!(growth < memory_floor(1), "{path}, {count} times {item}: {growth} bytes");
    }
}
