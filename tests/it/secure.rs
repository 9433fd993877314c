//! Who may reach which plane, over what, and how much of it a stranger may take.

mod rotate;
mod tls;
