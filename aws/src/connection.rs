//! The diagnosis of failed connections: whether anything was sent, why they failed, and what to do.
//!
//! The types of these errors are private to the SDK's HTTP client (hyper-util and rustls), so they
//! are told apart by the kind of their `io::Error` and by fixed texts. None of their text is kept.

use std::error::Error as StdError;
use std::io;

use aws_smithy_runtime_api::client::dns::ResolveDnsError;

/// The texts of hyper-util's errors while it connects.
const CONNECTING: [&str; 3] = ["client error (Connect)", "dns error", "tcp connect error"];

/// A part of rustls's text for an answer that is not TLS.
const NOT_TLS: &str = "InvalidContentType";

/// The beginning of rustls's texts about certificates.
const CERTIFICATE: &str = "invalid peer certificate";

/// The beginning of hyper's texts about an answer that it cannot parse.
const NOT_HTTP: &str = "invalid HTTP";

/// Returns an error and its causes, including those inside an `io::Error`.
pub(crate) fn levels<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn StdError + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

/// Returns the first of an error and its causes that is of this type.
pub(crate) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    levels(error).find_map(|error| error.downcast_ref())
}

/// Reports whether no connection was made, because DNS, TCP or TLS failed. Nothing was sent then.
pub(crate) fn never_connected(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    levels(error).any(|error| {
        let io = error.downcast_ref::<io::Error>();
        error.is::<ResolveDnsError>()
            || io.is_some_and(|e| {
                matches!(e.kind(), AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable)
            })
            || CONNECTING.contains(&error.to_string().as_str())
    })
}

/// Reports whether an answer ended before it was complete. A complete answer that cannot be parsed
/// is something else.
pub(crate) fn ended_early(error: &(dyn StdError + 'static)) -> bool {
    find::<io::Error>(error).is_some()
}

/// Returns what happened to a connection and what to do about it, for failures with a remedy of
/// their own.
pub(crate) fn diagnosis(error: &(dyn StdError + 'static)) -> Option<(&'static str, &'static str)> {
    let says = |is_meant: fn(&str) -> bool| levels(error).any(|error| is_meant(&error.to_string()));
    if find::<ResolveDnsError>(error).is_some() || says(|text| text == "dns error") {
        return Some((
            "could not be reached, because its host name is unknown here",
            "correct the region or the host of the endpoint, or check the DNS of this machine",
        ));
    }
    if says(|text| text.contains(NOT_TLS)) {
        return Some((
            "could not be reached, because what answers at its endpoint does not speak TLS",
            "write http:// if the endpoint has no TLS, or correct its host and port",
        ));
    }
    if says(|text| text.starts_with(CERTIFICATE)) {
        return Some((
            "could not be reached, because the certificate of its endpoint is not trusted here",
            "correct the host of the endpoint, or trust the authority that issued the certificate",
        ));
    }
    let is_in_handshake = |kind| matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    let broke_off = levels(error).any(|e| e.downcast_ref::<io::Error>().is_some_and(|e| is_in_handshake(e.kind())));
    if never_connected(error) && broke_off {
        return Some((
            "could not be reached, because the TLS handshake failed",
            "check the host, the port and the scheme of the endpoint, and the proxies in between",
        ));
    }
    says(|text| text.starts_with(NOT_HTTP)).then_some((
        "gave an answer that is not HTTP",
        "write https:// if the endpoint has TLS, or correct its host and port",
    ))
}
