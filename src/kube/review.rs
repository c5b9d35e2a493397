//! Asks the API server whose a token is, and what its owner may do.

use super::access::allows;
use super::client::Client;
use super::failure::Failure;
use super::request::{ApiRequest, Verb};
use super::response::ApiResponse;
use serde_json::{Value, json};
use std::time::Instant;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// The group of the virtual resource that Roles name to let callers in.
const GROUP: &str = "k8s-job-dispatcher";
/// Characters of what the API server says of a token.
const MAX_SAID: usize = 300;

/// A user (authentication.k8s.io/v1, UserInfo).
#[derive(Debug, Default)]
pub(crate) struct User {
    pub(crate) username: String,
    pub(crate) groups: Vec<String>,
    /// As JSON, as the SubjectAccessReview wants it: `user`, `uid`, `groups` and `extra`.
    spec: String,
}

impl User {
    /// Of a TokenReview's status; None if it names nobody.
    fn of(mut user: Value) -> Option<Self> {
        let username = user["username"].as_str().filter(|name| !name.is_empty())?.to_owned();
        let texts = |values: &Value| {
            values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let groups = texts(&user["groups"]);
        user["user"] = user["username"].take();
        user.as_object_mut()?.remove("username");
        Some(User { username, groups, spec: user.to_string() })
    }

    /// Bytes of its texts.
    pub(crate) fn text_bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|group| group.len() + size_of::<String>()).sum();
        self.username.len() + self.spec.len() + groups
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
        let mut review: Value =
            serde_json::from_slice(&response.body).map_err(|error| response.broken(error, "a TokenReview"))?;
        let status = &mut review["status"];
        let user = if status["authenticated"] == true { User::of(status["user"].take()) } else { None };
        let Some(user) = user else {
            let said: String = status["error"].as_str().unwrap_or_default().chars().take(MAX_SAID).collect();
            return Ok(Err(format!("the API server does not know the token: {said:?}")));
        };
        // an API server that knows no audiences names none: its token is not for us
        let is_for =
            |audience: &String| status["audiences"].as_array().is_some_and(|all| all.iter().any(|one| one == audience));
        if !audiences.is_empty() && !audiences.iter().any(is_for) {
            return Ok(Err("the token is not for this audience".to_owned()));
        }
        Ok(Ok(user))
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
        let attributes = json!({
            "namespace": namespace, "verb": verb, "group": GROUP, "resource": "jobs", "subresource": subresource,
        });
        let mut spec: Value = serde_json::from_str(&user.spec).unwrap_or_default(); // it was JSON
        spec["resourceAttributes"] = attributes;
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        allows(&self.review(Verb::AccessReview, ACCESS_REVIEWS, &review, until)?)
    }

    fn review(&mut self, verb: Verb, path: &str, review: &Value, until: Instant) -> Result<ApiResponse, Failure> {
        let body = review.to_string();
        self.call(ApiRequest { verb, path, body: Some(body.as_bytes()), until })?.expect("", 201)
    }
}
