//! The examples of the description: the server answers to each as it says there.

use serde_json::{Map, Value};

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
    /// is that of the path. The answer has the status and the shape that the description says.
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
                    assert_eq!(shape(&answer), shape(example), "{operation}: {answer:#}\n{example:#}");
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

/// Names and types of a document, without its values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut named: Map<String, Value> = members
                .iter()
                .map(|(name, member)| match name.as_str() {
                    "metadata" | "claims" => (name.clone(), "object".into()),
                    _ => (name.clone(), shape(member)),
                })
                .collect();
            named.sort_keys();
            named.into()
        }
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => "null".into(),
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
    for operation in ["getJwks", "isAlive", "isReady", "getOpenApi", "getDocs"] {
        described.send(operation, "", &[]).await;
    }
    assert_eq!(described.sent, 26, "25 operations, one of them twice");
}
