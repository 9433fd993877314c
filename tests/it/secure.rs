//! Who may reach which plane, over what, and how much of it a stranger may take.

mod admin;
mod browser;
mod rotate;
mod tls;
