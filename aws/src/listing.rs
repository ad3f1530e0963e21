//! [`listing`]: the entries on all pages of a listing.

use std::collections::HashSet;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use keystead_core::{BoxStream, Error, ErrorKind, KeyId, Operation, Result};

use crate::failure::Service;

/// The entries of one page, and the token of the next one.
pub type Page<T = KeyId> = (Vec<T>, Option<String>);

/// Returns all entries, a page at a time; `page` asks for the page of a token, or for the first
/// one.
///
/// A page may be empty and have a next one: only a missing token is the end.
///
/// # Errors
/// Those of `page`, and [`Corrupt`](ErrorKind::Corrupt) where a token comes again, as the listing would never end.
pub fn listing<'a, T: Send + 'a>(
    service: Service,
    page: impl Fn(Option<String>) -> BoxFuture<'a, Result<Page<T>>> + Send + Sync + 'a,
) -> BoxStream<'a, Result<T>> {
    let first = (None, HashSet::new());
    let pages = stream::try_unfold((page, Some(first)), move |(page, next)| async move {
        let Some((token, mut seen)) = next else { return Ok::<_, Error>(None) };
        let (entries, token) = page(token).await?;
        let next = match token.filter(|token| !token.is_empty()) {
            Some(token) if !seen.insert(token.clone()) => return Err(endless(service)),
            Some(token) => Some((Some(token), seen)),
            None => None,
        };
        Ok(Some((stream::iter(entries.into_iter().map(Ok)), (page, next))))
    });
    pages.try_flatten().boxed()
}

fn endless(service: Service) -> Error {
    let text = format!("{} gave the same page's token twice, so the listing would never end: try again", service.name);
    Error::new(ErrorKind::Corrupt, Operation::List, service.scheme).with_source(text)
}
