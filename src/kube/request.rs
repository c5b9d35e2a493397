//! What is asked of the API server.

use std::time::Instant;
use ureq::http::Method;

/// A kind of call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verb {
    Create,
    Get,
    Delete,
    List,
    Watch,
    Pods,
    Log,
    Ready,
    Review,
    TokenReview,
    AccessReview,
}

/// A request to the API server.
#[derive(Clone, Copy, Debug)]
pub(super) struct ApiRequest<'c> {
    pub(super) verb: Verb,
    pub(super) path: &'c str,
    pub(super) body: Option<&'c [u8]>,
    pub(super) until: Instant,
}

impl Verb {
    /// Its word in metrics, and its method.
    pub(super) fn word_and_method(self) -> (&'static str, Method) {
        match self {
            Verb::Create => ("create", Method::POST),
            Verb::Get => ("get", Method::GET),
            Verb::Delete => ("delete", Method::DELETE),
            Verb::List => ("list", Method::GET),
            Verb::Watch => ("watch", Method::GET),
            Verb::Pods => ("pods", Method::GET),
            Verb::Log => ("log", Method::GET),
            Verb::Ready => ("readyz", Method::GET),
            Verb::Review => ("review", Method::POST),
            Verb::TokenReview => ("tokenreview", Method::POST),
            Verb::AccessReview => ("subjectaccessreview", Method::POST),
        }
    }
}
