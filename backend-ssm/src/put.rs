//! Puts that give a new parameter its tags and its description.

use aws_sdk_ssm::types::{ResourceTypeForTagging, Tag};
use keystead_aws::{AwsFailure, Tags};
use keystead_core::ErrorKind;

use crate::error::{SERVICE, kind};
use crate::store::SsmStore;

/// The version of a parameter that was just created (`PutParameter`, `Version`).
pub(crate) const FIRST_VERSION: i64 = 1;

const UNTAGGED: &str = "the key was written, but its parameter has no tags, because it was deleted during the put and \
                        created again without them: allow ssm:AddTagsToResource, and add the tags to the parameter";

/// Creates a parameter, or overwrites the one that exists.
///
/// Parameter Store does not accept tags in a call that may overwrite, so this takes one call for a
/// new parameter and two for an existing one. If the parameter is deleted between the two calls,
/// the second one creates it, and a third one adds the tags.
pub(crate) async fn create_or_overwrite(store: &SsmStore, name: &str, value: &str) -> Result<(), AwsFailure> {
    let refusal = match store.write(name, value, false).await {
        Ok(_) => return Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => e,
        Err(e) => return Err(e),
    };
    match store.write(name, value, true).await {
        Ok(written) if written.version == FIRST_VERSION => add_tags(store, name).await,
        Ok(_) => Ok(()),
        // The parameter that exists may be the result of an earlier attempt to create it.
        Err(e) if refusal.is_ambiguous() => Err(e.partly_applied()),
        Err(e) => Err(e),
    }
}

/// Adds the tags to a parameter that was created without them.
async fn add_tags(store: &SsmStore, name: &str) -> Result<(), AwsFailure> {
    let Some(tags) = sdk_tags(store.config.tags()) else { return Ok(()) };
    let call = store.identity.call();
    let request = store.client.add_tags_to_resource().resource_type(ResourceTypeForTagging::Parameter);
    let request = request.resource_id(name).set_tags(Some(tags));
    match call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await {
        Ok(_) => Ok(()),
        Err(e) => {
            let kind = e.kind();
            Err(e.with_kind(kind, UNTAGGED).partly_applied())
        }
    }
}

/// Converts the tags for the SDK; `None` if there are none.
pub(crate) fn sdk_tags(tags: &Tags) -> Option<Vec<Tag>> {
    let tag = |(key, value)| Tag::builder().key(key).value(value).build().expect("the tag has a key and a value");
    let tags: Vec<Tag> = tags.iter().map(tag).collect();
    (!tags.is_empty()).then_some(tags)
}
