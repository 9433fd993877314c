//! Who may reach which plane, over what, and how much of it a stranger may take.

mod admin;
mod browser;
mod envoy;
mod floods;
mod reflection;
mod rotate;
mod slow;
mod timing;
mod tls;
mod trust;
