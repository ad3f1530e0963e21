//! Checks of requests: what AWS documents that it refuses and the emulator accepts, and what our
//! stores must send.

use std::collections::HashSet;

use serde_json::Value;

use crate::answer::Answer;
use crate::request::AwsRequest;
use crate::rules::Rules;
use crate::{FOREIGN_KMS_KEY_ARN, KMS_KEY, KMS_KEY_ARN};

/// The longest name of a parameter, in characters. The ARN before the name counts as well.
const LONGEST_PARAMETER_NAME: usize = 1011 - 45;

const MOST_LEVELS: usize = 15;

pub(crate) fn refusal(call: &AwsRequest, rules: &Rules) -> Option<Answer> {
    let refused = match call.service.as_str() {
        "ssm" => ssm(call, rules),
        "secretsmanager" => secrets_manager(call),
        "sts" if matches!(call.name.as_str(), "GetCallerIdentity" | "AssumeRole") => Ok(()),
        other => invalid(format!("the test bed has no service {other:?}")),
    };
    refused.err().map(|Refusal(code, message)| Answer::error(400, code, Some(&message)))
}

/// A code and a message.
struct Refusal(&'static str, String);

type Checked = Result<(), Refusal>;

fn invalid(message: impl Into<String>) -> Checked {
    Err(Refusal("ValidationException", message.into()))
}

fn demand(holds: bool, message: &str) -> Checked {
    if holds { Ok(()) } else { invalid(message) }
}

fn ssm(call: &AwsRequest, rules: &Rules) -> Checked {
    let body = &call.body;
    match call.name.as_str() {
        "GetParameter" => {
            parameter_name(without_selector(text(&body["Name"])))?;
            demand(body["WithDecryption"] == true, "our stores must read with decryption")
        }
        "GetParameters" => {
            batch(&body["Names"], 10, parameter_name)?;
            demand(body["WithDecryption"] == true, "our stores must read with decryption")
        }
        "PutParameter" => put_parameter(body, rules.default_tier(call).as_deref()),
        "DeleteParameter" => parameter_name(text(&body["Name"])),
        "DeleteParameters" => batch(&body["Names"], 10, parameter_name),
        "GetParametersByPath" => {
            demand(text(&body["Path"]).starts_with('/'), "a path begins with a slash")?;
            demand(body["WithDecryption"] != true, "our stores must not decrypt what they list")?;
            demand(body["MaxResults"].as_u64().is_none_or(|most| (1..=10).contains(&most)), "MaxResults is 1 to 10")
        }
        "DescribeParameters" => {
            demand(body["MaxResults"].as_u64().is_none_or(|most| (1..=50).contains(&most)), "MaxResults is 1 to 50")?;
            let filters = body["ParameterFilters"].as_array();
            let values = filters.into_iter().flatten().flat_map(|filter| filter["Values"].as_array()).flatten();
            values.map(text).try_for_each(|value| demand(!value.is_empty(), "a filter's value is not empty"))
        }
        "AddTagsToResource" => tags(&body["Tags"]),
        other => invalid(format!("the test bed has no operation {other:?}")),
    }
}

fn put_parameter(body: &Value, default_tier: Option<&str>) -> Checked {
    parameter_name(text(&body["Name"]))?;
    tags(&body["Tags"])?;
    let is_overwrite = body["Overwrite"] == true;
    demand(body["Tags"].is_null() || !is_overwrite, "tags and overwrite can't be used together")?;
    demand(body["Description"].is_null() || !is_overwrite, "our stores must not change a description")?;
    demand(text(&body["Description"]).chars().count() <= 1024, "a description has at most 1024 characters")?;
    demand(body["Type"] == "SecureString", "our stores must write SecureString")?;
    demand(body["Overwrite"].is_boolean(), "our stores must say whether they overwrite")?;
    let longest = match body["Tier"].as_str().or(default_tier) {
        Some("Standard") => 4096,
        Some("Advanced" | "Intelligent-Tiering") => 8192,
        _ => return invalid("our stores must send a tier, one of Standard, Advanced and Intelligent-Tiering"),
    };
    let value = text(&body["Value"]);
    demand((1..=longest).contains(&value.len()), "a value has 1 to 4096 bytes, 8192 in the advanced tier")?;
    demand(!value.contains("{{"), "a value must not hold {{")?;
    match body["KeyId"].as_str() {
        None => invalid("our stores must send a KeyId"),
        Some(key) if is_known(key) => Ok(()),
        Some(key) => Err(Refusal("InvalidKeyId", format!("Invalid keyId {key}"))),
    }
}

/// Checks tags for the mistakes that our stores could make.
fn tags(tags: &Value) -> Checked {
    let Some(tags) = tags.as_array() else { return demand(tags.is_null(), "tags are a list") };
    demand((1..=50).contains(&tags.len()), "our stores must send 1 to 50 tags, or none")?;
    let keys: HashSet<&str> = tags.iter().map(|tag| text(&tag["Key"])).collect();
    demand(keys.len() == tags.len(), "no two tags have the same key")?;
    tags.iter().try_for_each(|tag| {
        let key = text(&tag["Key"]);
        let value = text(&tag["Value"]);
        demand((1..=128).contains(&key.chars().count()), "a tag's key has 1 to 128 characters")?;
        demand(value.chars().count() <= 256, "a tag's value has at most 256 characters")?;
        demand(!key.to_ascii_lowercase().starts_with("aws:"), "aws: is reserved")
    })
}

fn is_known(key: &str) -> bool {
    key == KMS_KEY || key == FOREIGN_KMS_KEY_ARN || key == KMS_KEY_ARN || KMS_KEY_ARN.ends_with(&format!("/{key}"))
}

/// Returns the name without the number of a version after it.
fn without_selector(name: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.rsplit_once(':').filter(|(_, number)| is_number(number)).map_or(name, |(name, _)| name)
}

fn parameter_name(name: &str) -> Checked {
    let literal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
    demand(!name.is_empty() && name.bytes().all(literal), "a name is made of A-Z a-z 0-9 _ . - /")?;
    demand(name.len() <= LONGEST_PARAMETER_NAME, "a name with its ARN has at most 1011 characters")?;
    demand(!name.contains('/') || name.starts_with('/'), "a name in a hierarchy begins with a slash")?;
    demand(!name.contains("//") && !name.ends_with('/'), "no level of a name is empty")?;
    demand(name.matches('/').count() <= MOST_LEVELS, "a name has at most 15 levels")?;
    let first = name.trim_start_matches('/').to_ascii_lowercase();
    demand(!first.starts_with("aws") && !first.starts_with("ssm"), "a name must not begin with aws or ssm")
}

fn secrets_manager(call: &AwsRequest) -> Checked {
    let body = &call.body;
    match call.name.as_str() {
        "GetSecretValue" | "DescribeSecret" => secret_name(text(&body["SecretId"])),
        "BatchGetSecretValue" => batch(&body["SecretIdList"], 20, secret_name),
        "CreateSecret" => {
            secret_name(text(&body["Name"]))?;
            secret_value(body)?;
            tags(&body["Tags"])?;
            demand(text(&body["Description"]).chars().count() <= 2048, "a description has at most 2048 characters")?;
            let replicas = body["AddReplicaRegions"].as_array();
            replicas.into_iter().flatten().try_for_each(|replica| {
                demand(!text(&replica["Region"]).is_empty(), "a replica has a region")?;
                demand(!text(&replica["KmsKeyId"]).is_empty(), "our stores must send the KMS key of a replica")
            })?;
            match body["KmsKeyId"].as_str() {
                None => invalid("our stores must send a KmsKeyId"),
                Some(key) if is_known(key) => Ok(()),
                Some(_) => Err(Refusal("EncryptionFailure", "the KMS key does not exist".to_owned())),
            }
        }
        "PutSecretValue" => {
            secret_name(text(&body["SecretId"]))?;
            secret_value(body)
        }
        "DeleteSecret" => {
            secret_name(text(&body["SecretId"]))?;
            let force = &body["ForceDeleteWithoutRecovery"];
            let window = &body["RecoveryWindowInDays"];
            let days = window.as_u64().is_some_and(|days| (7..=30).contains(&days));
            demand((*force == true) != days, "a delete is forced, or has a window of 7 to 30 days")
        }
        "UpdateSecret" => {
            secret_name(text(&body["SecretId"]))?;
            demand(body["SecretBinary"].is_null(), "our stores must not write a value with UpdateSecret")?;
            match body["KmsKeyId"].as_str() {
                Some(key) if is_known(key) => Ok(()),
                _ => Err(Refusal("EncryptionFailure", "the KMS key does not exist".to_owned())),
            }
        }
        "RemoveRegionsFromReplication" => {
            secret_name(text(&body["SecretId"]))?;
            let regions = body["RemoveReplicaRegions"].as_array();
            demand(regions.is_some_and(|regions| !regions.is_empty()), "at least one region is removed")
        }
        "ListSecretVersionIds" => {
            secret_name(text(&body["SecretId"]))?;
            demand(body["MaxResults"].as_u64().is_none_or(|most| (1..=100).contains(&most)), "MaxResults is 1 to 100")
        }
        "ListSecrets" => {
            demand(body["MaxResults"].as_u64().is_none_or(|most| (1..=100).contains(&most)), "MaxResults is 1 to 100")
        }
        other => invalid(format!("the test bed has no operation {other:?}")),
    }
}

fn secret_value(body: &Value) -> Checked {
    let token = text(&body["ClientRequestToken"]);
    demand((32..=64).contains(&token.len()), "a request token has 32 to 64 characters")?;
    // The length in base64, for 1 to 65536 bytes.
    demand((1..=87_384).contains(&text(&body["SecretBinary"]).len()), "our stores must send a SecretBinary")
}

fn secret_name(name: &str) -> Checked {
    let literal = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    demand(!name.is_empty() && name.bytes().all(literal), "a name is made of A-Z a-z 0-9 / _ + = . @ -")?;
    demand(name.len() <= 512, "a name has at most 512 characters")
}

/// Checks the names of a batch. Repeated names are refused, because AWS does not document what it
/// does with them.
fn batch(names: &Value, most: usize, check: fn(&str) -> Checked) -> Checked {
    let names: Vec<&str> = names.as_array().map(|names| names.iter().map(text).collect()).unwrap_or_default();
    demand((1..=most).contains(&names.len()), "a batch has at least one name and at most as many as are documented")?;
    demand(names.iter().collect::<HashSet<_>>().len() == names.len(), "our stores must not repeat a name")?;
    names.into_iter().try_for_each(check)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
