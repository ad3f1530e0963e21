//! [`Rules`]: an account's configuration, which is a policy that demands tags and a default tier.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::answer::Answer;
use crate::request::AwsRequest;

/// The rules of accounts, and the facts about resources that the rules depend on.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Mutex<Vec<(String, Rule)>>,
    /// The resources that were created through the proxy, by service and name.
    resources: Mutex<HashMap<(String, String), Resource>>,
}

#[derive(Clone, Debug)]
enum Rule {
    RequiredTags(Vec<String>),
    DefaultTier(String),
}

#[derive(Clone, Debug, Default)]
struct Resource {
    tags: Vec<String>,
    tier: Option<String>,
}

impl Rules {
    /// Adds a policy that demands these tags of requests whose bodies contain this text.
    pub(crate) fn require_tags(&self, text: &str, keys: &[&str]) {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        self.add(text, Rule::RequiredTags(keys));
    }

    /// Sets the tier of parameters whose put names none, for requests whose bodies contain this
    /// text.
    pub(crate) fn set_default_tier(&self, text: &str, tier: &str) {
        self.add(text, Rule::DefaultTier(tier.to_owned()));
    }

    fn add(&self, text: &str, rule: Rule) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push((text.to_owned(), rule));
    }

    fn of(&self, call: &AwsRequest) -> Vec<Rule> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.iter().filter(|(text, _)| call.text.contains(text)).map(|(_, rule)| rule.clone()).collect()
    }

    /// Returns the tier that the account gives to a parameter whose put names none.
    pub(crate) fn default_tier(&self, call: &AwsRequest) -> Option<String> {
        let tier = |rule| match rule {
            Rule::DefaultTier(tier) => Some(tier),
            Rule::RequiredTags(_) => None,
        };
        self.of(call).into_iter().find_map(tier)
    }

    /// Returns the refusal of a put without the tags that a policy demands, or of a put that would
    /// move a parameter from the advanced tier to the standard one.
    pub(crate) fn refusal(&self, call: &AwsRequest) -> Option<Answer> {
        if !matches!(call.name.as_str(), "PutParameter" | "CreateSecret") {
            return None;
        }
        let resource = self.resource(call);
        for rule in self.of(call) {
            let Rule::RequiredTags(keys) = rule else { continue };
            let given = tag_keys(&call.body["Tags"]);
            // The tags count as with a policy on aws:RequestTag for new resources, and on
            // aws:ResourceTag for existing ones.
            let has_all = |tags: &[String]| keys.iter().all(|key| tags.contains(key));
            if !has_all(&given) && !resource.as_ref().is_some_and(|resource| has_all(&resource.tags)) {
                let message = format!(
                    "User: arn:aws:iam::123456789012:user/test is not authorized to perform: {}:{} on resource: \
                     arn:aws:{}:us-east-1:123456789012:{} with an explicit deny in an identity-based policy",
                    call.service,
                    call.name,
                    call.service,
                    call.first_name()
                );
                return Some(Answer::error(400, "AccessDeniedException", Some(&message)));
            }
        }
        let is_advanced = resource.is_some_and(|resource| resource.tier.as_deref() == Some("Advanced"));
        let is_overwrite = call.body["Overwrite"] == true;
        (is_advanced && is_overwrite && self.tier(call).as_deref() == Some("Standard")).then(|| {
            let message =
                "You can't downgrade a parameter from the advanced-parameter tier to the standard-parameter tier.";
            Answer::error(400, "ValidationException", Some(message))
        })
    }

    /// Records what a request that got this answer has created, tagged or deleted.
    pub(crate) fn remember(&self, call: &AwsRequest, answer: &Answer) {
        if !answer.status.is_success() {
            return;
        }
        let key = |name: &str| (call.service.clone(), name.to_owned());
        let tier = self.tier(call);
        let mut resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        match call.name.as_str() {
            "PutParameter" | "CreateSecret" => {
                let resource = resources.entry(key(call.first_name())).or_default();
                resource.tags.extend(tag_keys(&call.body["Tags"]));
                resource.tier = tier;
            }
            "AddTagsToResource" => {
                let name = call.body["ResourceId"].as_str().unwrap_or_default();
                resources.entry(key(name)).or_default().tags.extend(tag_keys(&call.body["Tags"]));
            }
            "DeleteParameter" | "DeleteSecret" => drop(resources.remove(&key(call.first_name()))),
            "DeleteParameters" => {
                for name in call.body["Names"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    resources.remove(&key(name));
                }
            }
            _ => {}
        }
    }

    fn tier(&self, call: &AwsRequest) -> Option<String> {
        call.body["Tier"].as_str().map(str::to_owned).or_else(|| self.default_tier(call))
    }

    fn resource(&self, call: &AwsRequest) -> Option<Resource> {
        let resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        resources.get(&(call.service.clone(), call.first_name().to_owned())).cloned()
    }
}

fn tag_keys(tags: &Value) -> Vec<String> {
    tags.as_array().into_iter().flatten().filter_map(|tag| tag["Key"].as_str()).map(str::to_owned).collect()
}
