//! OWNS ureq and rustls: one client per thread for calls to the API server, with their failures as values.
//! Knows neither jq nor our routes.

mod access;
mod api_server;
mod bound;
mod circuit;
mod client;
mod create;
mod credentials;
mod delete;
mod errors;
mod failure;
mod get;
mod items;
mod job;
mod leaves;
mod log;
mod metadata;
mod pods;
mod refusal;
mod request;
mod response;
mod review;
mod scalar;
mod stream;
mod transport;
mod url;

pub(crate) use access::Right;
pub(crate) use api_server::ApiServer;
pub(crate) use bound::{LONG_ANSWER, USUAL_ANSWER};
pub(crate) use client::Client;
pub(crate) use create::Create;
pub(crate) use failure::{Failure, Refusal, RefusalKind};
#[cfg(test)]
pub(crate) use job::Situation;
pub(crate) use job::{Job, JobState};
pub(crate) use log::{LOG_ANSWER, Log, Which};
pub(crate) use pods::{JobKey, MAX_JOBS, Pod, Pods};
pub(crate) use review::User;
pub(crate) use stream::{End, Event, From};
pub(crate) use transport::Patience;
pub(crate) use url::{check_url, is_loopback};
