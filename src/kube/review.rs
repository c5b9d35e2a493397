//! Asks the API server whose a token is, and what its owner may do.

use super::access::allows;
use super::client::Client;
use super::failure::Failure;
use super::request::{ApiRequest, Verb};
use super::response::ApiResponse;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Instant;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// The group of the virtual resource that Roles name to let callers in.
const GROUP: &str = "k8s-job-dispatcher";
/// Characters of what the API server says of a token.
const MAX_SAID: usize = 300;

/// A user (authentication.k8s.io/v1, UserInfo).
#[derive(Debug, Default, Deserialize)]
pub(crate) struct User {
    #[serde(default)]
    pub(crate) username: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    extra: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct TokenReview {
    status: TokenReviewStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenReviewStatus {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

impl User {
    /// Bytes of its texts.
    pub(crate) fn text_bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|group| group.len() + size_of::<String>()).sum();
        self.username.len() + self.uid.len() + groups + self.extra.as_ref().map_or(0, |extra| extra.get().len())
    }
}

impl Client {
    /// Whose a token is, for one of these audiences; without any, for the API server itself.
    ///
    /// Errors: nobody's, with what the API server says of it; or the call fails.
    pub(crate) fn owner(
        &mut self,
        token: &str,
        audiences: &[String],
        until: Instant,
    ) -> Result<Result<User, String>, Failure> {
        let spec = json!({"token": token, "audiences": audiences});
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
        let response = self.review(Verb::TokenReview, TOKEN_REVIEWS, &review, until)?;
        let TokenReview { status } =
            serde_json::from_slice(&response.body).map_err(|error| response.broken(error, "a TokenReview"))?;
        if !status.authenticated || status.user.username.is_empty() {
            let said: String = status.error.chars().take(MAX_SAID).collect();
            return Ok(Err(format!("the API server does not know the token: {said:?}")));
        }
        // an API server that knows no audiences names none: its token is not for us
        if !audiences.is_empty() && !audiences.iter().any(|audience| status.audiences.contains(audience)) {
            return Ok(Err("the token is not for this audience".to_owned()));
        }
        Ok(Ok(status.user))
    }

    /// Whether a user may do this with the virtual resource in a namespace.
    pub(crate) fn user_may(
        &mut self,
        user: &User,
        namespace: &str,
        verb: &str,
        subresource: &str,
        until: Instant,
    ) -> Result<bool, Failure> {
        let User { username, uid, groups, extra } = user;
        let attributes = json!({
            "namespace": namespace, "verb": verb, "group": GROUP, "resource": "jobs", "subresource": subresource,
        });
        let spec =
            json!({"user": username, "uid": uid, "groups": groups, "extra": extra, "resourceAttributes": attributes});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        allows(&self.review(Verb::AccessReview, ACCESS_REVIEWS, &review, until)?)
    }

    fn review(&mut self, verb: Verb, path: &str, review: &Value, until: Instant) -> Result<ApiResponse, Failure> {
        let body = review.to_string();
        self.call(ApiRequest { verb, path, body: Some(body.as_bytes()), until })?.expect("", 201)
    }
}
