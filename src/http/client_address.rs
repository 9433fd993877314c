//! The client's address of an HTTP request.

use std::net::IpAddr;

use axum::extract::Request;

use crate::caller::Peer;
use crate::config::ClientIpSource;
use crate::host::address_of;

/// Returns the client's address from the configured source.
///
/// Of `X-Forwarded-For` the last entry counts, which the nearest proxy has written.
pub(super) fn client_address(source: ClientIpSource, request: &Request) -> Option<IpAddr> {
    let header = |name: &str| {
        let value = request.headers().get_all(name).iter().next_back()?.as_bytes();
        address_of(value.rsplit(|byte| *byte == b',').next()?)
    };
    match source {
        ClientIpSource::RemoteAddr => request.extensions().get::<Peer>().and_then(|peer| peer.address),
        ClientIpSource::CfConnectingIp => header("cf-connecting-ip"),
        ClientIpSource::XForwardedFor => header("x-forwarded-for"),
        ClientIpSource::XRealIp => header("x-real-ip"),
        ClientIpSource::TrueClientIp => header("true-client-ip"),
    }
}
