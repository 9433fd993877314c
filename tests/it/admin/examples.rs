//! The examples of the OpenAPI document: the server answers each request as its example says.

use serde_json::Value;

use crate::rig::http::{Call, Version};
use crate::rig::support::{Json, Must};
use crate::rig::talos::{Setup, Talos};

/// A server, and the description of its API.
struct Described {
    talos: Talos,
    description: Value,
    /// Number of examples that were sent.
    sent: usize,
}

impl Described {
    async fn start() -> Self {
        let talos = Setup::new().set("TALOS_RATE_LIMIT_ENABLED", "true").start().await;
        let description = talos.admin.get("/openapi.json").await.expect(200).json();
        Self { talos, description, sent: 0 }
    }

    /// Sends the example of an operation with these texts in place of those that stand there; `id`
    /// is that of the path. The answer has the status and the members that the description says.
    async fn send(&mut self, operation: &str, id: &str, texts: &[(&str, &str)]) -> Value {
        let (method, path, described) = self.find(operation);
        let path = match (path.split_once('{'), path.split_once('}')) {
            (Some((before, _)), Some((_, after))) => format!("{before}{id}{after}"),
            _ => path,
        };
        let query = if operation == "adminDeleteActor" { "?force=true" } else { "" };
        let mut call = Call::new(&method.to_uppercase(), &format!("{path}{query}"));
        if let Some(request) = described.pointer("/requestBody/content/application~1json/example") {
            let body = texts.iter().fold(request.to_string(), |body, (old, new)| body.replace(old, new));
            call = call.body("application/json", body);
        }
        let responses = described.at("/responses").as_object().must("responses");
        let (status, response) =
            responses.iter().find(|(status, _)| status.starts_with('2')).must("a response");
        let reply = self.talos.admin.send(Version::Http1, call).await.expect(status.parse().must("a status"));
        self.sent += 1;
        match response.pointer("/content/application~1json/example") {
            None => Value::Null,
            Some(example) => {
                let answer = reply.json();
                if operation != "getOpenApi" {
                    let mut wrong = vec![];
                    compare(operation, example, &answer, &mut wrong);
                    assert!(wrong.is_empty(), "{wrong:#?}\n{answer:#}");
                }
                answer
            }
        }
    }

    fn find(&self, id: &str) -> (String, String, Value) {
        for (path, item) in self.description.at("/paths").as_object().must("paths") {
            for (method, operation) in item.as_object().must(path) {
                if operation["operationId"] == id {
                    return (method.clone(), path.clone(), operation.clone());
                }
            }
        }
        panic!("there is no operation {id}")
    }
}

/// Collects the members of an example that an answer lacks, or has with another type. Attributes
/// and claims are the owner's own.
fn compare(at: &str, example: &Value, answer: &Value, wrong: &mut Vec<String>) {
    match (example, answer) {
        (Value::Object(example), Value::Object(answer)) => {
            for (name, member) in
                example.iter().filter(|(name, _)| !["metadata", "claims"].contains(&name.as_str()))
            {
                match answer.get(name) {
                    None => wrong.push(format!("{at} has no {name}")),
                    Some(answer) => compare(&format!("{at}.{name}"), member, answer, wrong),
                }
            }
        }
        (Value::Array(example), Value::Array(answer)) => {
            if example.len() != answer.len() {
                wrong.push(format!("{at} has {} items and not {}", answer.len(), example.len()));
            }
            for (example, answer) in example.iter().zip(answer) {
                compare(&format!("{at}[]"), example, answer, wrong);
            }
        }
        // Enumerations and booleans are as they are; ids and times differ.
        (Value::String(example), Value::String(answer)) => {
            let is_name = |text: &str| {
                let of_name = |character: char| character.is_ascii_uppercase() || character == '_';
                text.contains('_') && text.chars().all(of_name) && !text.starts_with("EXAMPLE")
            };
            if is_name(example) && example != answer {
                wrong.push(format!("{at} is {answer} and not {example}"));
            }
        }
        (Value::Number(_), Value::Number(_)) => {}
        _ if example == answer => {}
        _ => wrong.push(format!("{at} is {answer} and not {example}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_answers_to_the_examples_as_they_say() {
    let mut described = Described::start().await;
    let issued = described.send("adminIssueApiKey", "", &[]).await;
    let id = issued.text("/issued_api_key/key_id");
    let secret = [("ory_ak_v1_EXAMPLE", issued.text("/secret"))];
    described.send("adminGetIssuedApiKey", id, &[]).await;
    described.send("adminListIssuedApiKeys", "", &[]).await;
    described.send("adminVerifyApiKey", "", &secret).await;
    described.send("adminBatchVerifyApiKeys", "", &secret).await;
    described.send("adminDeriveToken", "", &secret).await;
    described.send("adminUpdateIssuedApiKey", id, &[]).await;
    let rotated = described.send("adminRotateIssuedApiKey", id, &[]).await;
    described.send("adminRevokeIssuedApiKey", id, &[]).await;
    described.send("adminRevokeApiKey", rotated.text("/issued_api_key/key_id"), &[]).await;
    described.send("adminDeleteIssuedApiKey", id, &[]).await;

    let imported = described.send("adminImportApiKey", "", &[]).await;
    let id = imported.text("/key_id");
    described.send("adminGetImportedApiKey", id, &[]).await;
    described.send("adminListImportedApiKeys", "", &[]).await;
    described.send("adminUpdateImportedApiKey", id, &[]).await;
    described.send("adminRevokeImportedApiKey", id, &[]).await;
    described.send("adminDeleteImportedApiKey", id, &[]).await;
    described.send("adminBatchCreateImportedApiKeys", "", &[]).await;

    let own = described.send("adminIssueApiKey", "", &[("export-1", "export-2")]).await;
    described.send("revokeApiKey", "", &[("ory_ak_v1_EXAMPLE", own.text("/secret"))]).await;
    described.send("adminDeleteActor", "alice", &[]).await;
    for operation in ["getJwks", "isAlive", "isReady", "getOpenApi", "getDocs", "adminGetStatus"] {
        described.send(operation, "", &[]).await;
    }
    assert_eq!(described.sent, 27, "26 operations, one of them twice");
}
