//! Access to the planes: transports, callers, and what strangers can use up.

mod admin;
mod browser;
mod console;
mod envoy;
mod floods;
mod reflection;
mod rotate;
mod slow;
mod timing;
mod tls;
mod trust;
