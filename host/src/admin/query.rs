//! The query of a request as a value. What does not read is told with the parameters that there are, as the API's
//! document has them.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::problem::Trouble;

/// What stands before the reason in axum's own words.
const AXUM: &str = "Failed to deserialize query string: ";

/// The parameters of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Params<T>
where
    T: DeserializeOwned + IntoParams,
    S: Send + Sync,
{
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        let Query(query) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|wrong| {
                let text = wrong.body_text();
                let why = text.strip_prefix(AXUM).unwrap_or(&text);
                let known = T::into_params(|| None);
                let known: Vec<_> = known.into_iter().map(|one| one.name).collect();
                Trouble::malformed(format!("the query: {why}"))
                    .hint(format!("its parameters are {}", known.join(", ")))
            })?;
        Ok(Self(query))
    }
}
