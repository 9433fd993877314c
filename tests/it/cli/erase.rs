//! `keys issued delete` and `actors delete`.

use serde_json::json;

use super::Cli;
use crate::rig::talos::{IMPORTED, ISSUED};

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_actors_are_erased() {
    let cli = Cli::start().await;
    let key = cli.talos.issue(json!({ "actor_id": "user:1" })).await;
    let deleted = cli.run(&["keys", "issued", "delete", &key.id]).await.expect(0);
    assert!(deleted.stderr.contains(&key.id), "{deleted:#?}");
    cli.talos.admin.get(&format!("{ISSUED}/{}", key.id)).await.expect(404);
    cli.run(&["keys", "issued", "delete", &key.id]).await.expect(1);

    let actor = "user/2 %2F";
    cli.talos.issue(json!({ "actor_id": actor })).await;
    for part in 0..2 {
        let key =
            |number| json!({ "name": "n", "actor_id": actor, "raw_key": format!("legacy-{part}-{number}") });
        let body = json!({ "requests": (0..501).map(key).collect::<Vec<_>>() });
        cli.talos.admin.post(&format!("{IMPORTED}:batchCreate"), &body).await.expect(200);
    }
    let refused = cli.run(&["actors", "delete", actor]).await.expect(1);
    assert!(refused.stderr.contains("force=true"), "{refused:#?}");
    // More than one request deletes.
    let erased = cli.run(&["actors", "delete", actor, "--force", "--format", "json"]).await.json();
    assert_eq!(erased, json!({ "issued_api_key_count": 1, "imported_api_key_count": 1_002 }));
    cli.run(&["actors", "delete", actor]).await.expect(1);
}
