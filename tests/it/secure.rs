//! Access to the planes: over which transport, by whom, and how much of it a stranger may use.

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
