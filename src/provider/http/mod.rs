//! The one HTTP client, and what the answers of any forge have in common.

mod client;
mod clock;
mod connect;
mod download;
mod kept;
mod limits;
mod origin;
mod packed;
mod proxy;
mod redirect;
mod refusal;
mod reply;
mod request;
mod trouble;
mod trust;

pub use client::{Http, Observer, Reached};
pub use limits::{Allowance, speaks_of_limit};
pub use origin::Signature;
pub use refusal::Repeated;
pub use reply::Reply;
pub use request::{Authorization, Body};
pub use trouble::Obstacle;
