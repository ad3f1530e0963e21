//! An HTTP service that keeps one encrypted profile per user, and forgets users.
//!
//! It shows how an application uses keystead: [`Config`] opens the stores and builds a
//! [`Stack`](keystead::layers::Stack) of layers around them, and [`router`] has the four routes of
//! the service. The README says how to run it.

mod config;
mod crypto;
mod error;
mod profiles;
mod routes;

pub use self::config::{Config, StackConfig};
pub use self::error::describe;
pub use self::profiles::ProfileTable;
pub use self::routes::router;
