//! [`listing`]: a stream of the entries on all pages of a listing.

use std::collections::HashSet;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use keystead_core::{BoxStream, Error, ErrorKind, KeyId, Operation, Result};

use crate::failure::Service;

/// One page of a listing.
#[derive(Clone, Debug)]
pub struct Page<T = KeyId> {
    /// The entries on this page.
    pub entries: Vec<T>,
    /// The token of the next page, if there is one.
    pub next: Option<String>,
    /// The request id of the answer, for errors.
    pub request_id: Option<String>,
}

impl<T> Page<T> {
    /// Converts each entry, and drops those for which `make` returns `None`.
    pub fn filter_map<U>(self, make: impl FnMut(T) -> Option<U>) -> Page<U> {
        let Self { entries, next, request_id } = self;
        Page { entries: entries.into_iter().filter_map(make).collect(), next, request_id }
    }
}

/// Returns a stream of all entries. `page` requests the page of a token, or the first page.
///
/// A page may be empty and still have a next one: the listing ends only where there is no token.
///
/// # Errors
/// Those of `page`, and [`Corrupt`](ErrorKind::Corrupt) if a token is repeated, because the listing
/// would never end.
pub fn listing<'a, T: Send + 'a>(
    service: Service,
    page: impl Fn(Option<String>) -> BoxFuture<'a, Result<Page<T>>> + Send + Sync + 'a,
) -> BoxStream<'a, Result<T>> {
    let first = (None, HashSet::new());
    let pages = stream::try_unfold((page, Some(first)), move |(page, next)| async move {
        let Some((token, mut seen)) = next else { return Ok::<_, Error>(None) };
        let Page { entries, next, request_id } = page(token).await?;
        let next = match next.filter(|token| !token.is_empty()) {
            Some(token) if !seen.insert(token.clone()) => return Err(endless(service, request_id.as_deref())),
            Some(token) => Some((Some(token), seen)),
            None => None,
        };
        Ok(Some((stream::iter(entries.into_iter().map(Ok)), (page, next))))
    });
    pages.try_flatten().boxed()
}

fn endless(service: Service, request_id: Option<&str>) -> Error {
    let text = format!("{} repeated a page's token, so the listing would never end: try again", service.name);
    let details = service.details_of_answer(request_id);
    Error::new(ErrorKind::Corrupt, Operation::List, service.scheme).with_details(details).with_source(text)
}
