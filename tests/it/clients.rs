//! Existing clients drive us: what is published for Ory Talos works here as it is.

use crate::python;
use crate::talos::{ISSUER, Talos};

#[tokio::test(flavor = "multi_thread")]
async fn the_published_sdk_goes_through_all_its_operations() {
    let talos = Talos::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sdk.py");
    let (admin, public) = (talos.admin.url(""), talos.public.url(""));
    python::run_beside("TALOS_TEST_SDK_PYTHONPATH", &[script, &admin, &public, ISSUER]).await;
}
