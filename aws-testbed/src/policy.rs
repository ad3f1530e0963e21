//! [`statements_in`]: the IAM policies in a document.

use std::collections::BTreeSet;

use serde_json::Value;

/// A statement of an IAM policy that allows actions.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The actions, such as `ssm:GetParameter`.
    pub actions: BTreeSet<String>,
    /// The resources, as ARNs or `*`.
    pub resources: BTreeSet<String>,
    /// The conditions; null if there are none.
    pub condition: Value,
}

/// Returns the statements of all policies in the JSON blocks of a document in Markdown.
///
/// # Panics
/// If a JSON block is not an IAM policy of version 2012-10-17, in the part of its grammar that we
/// use: each statement allows named actions of services on ARNs or on everything.
pub fn statements_in(document: &str) -> Vec<Statement> {
    let blocks = document.split("```json\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").expect("the block ends").0);
    let statements: Vec<Statement> = blocks.flat_map(statements_of).collect();
    assert!(!statements.is_empty(), "the document shows no policy");
    statements
}

fn statements_of(block: &str) -> Vec<Statement> {
    let policy: Value = serde_json::from_str(block).unwrap_or_else(|e| panic!("{e} in {block}"));
    assert_keys(&policy, &["Version", "Statement"], &[]);
    assert_eq!(policy["Version"], "2012-10-17");
    let statements = policy["Statement"].as_array().expect("Statement is a list");
    statements.iter().map(Statement::parsed).collect()
}

impl Statement {
    fn parsed(statement: &Value) -> Self {
        assert_keys(statement, &["Effect", "Action", "Resource"], &["Sid", "Condition"]);
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        let actions = one_or_many(&statement["Action"]);
        let resources = one_or_many(&statement["Resource"]);
        for action in &actions {
            let (service, name) = action.split_once(':').expect("an action has a service");
            let is_service = service.bytes().all(|byte| byte.is_ascii_lowercase());
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphabetic()) && name.starts_with(char::is_uppercase);
            assert!(is_service && is_name, "{action} is not the name of one action");
        }
        for resource in &resources {
            let is_arn = resource.starts_with("arn:aws:")
                && resource.splitn(6, ':').filter(|part| !part.is_empty()).count() == 6;
            assert!(resource == "*" || is_arn, "{resource} is not an ARN");
        }
        Self { actions, resources, condition: statement["Condition"].clone() }
    }

    /// Returns the values of a condition, such as `StringEquals` for `kms:ViaService`.
    pub fn values_of(&self, operator: &str, key: &str) -> BTreeSet<String> {
        match &self.condition[operator][key] {
            Value::Null => BTreeSet::new(),
            values => one_or_many(values),
        }
    }
}

fn assert_keys(value: &Value, needed: &[&str], allowed: &[&str]) {
    let object = value.as_object().expect("it is an object");
    for key in needed {
        assert!(object.contains_key(*key), "{key} is missing in {value}");
    }
    for key in object.keys() {
        assert!(needed.iter().chain(allowed).any(|known| known == key), "{key} does not belong into {value}");
    }
}

fn one_or_many(value: &Value) -> BTreeSet<String> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    assert!(!values.is_empty(), "a list is empty");
    values.iter().map(|value| value.as_str().expect("it is a text").to_owned()).collect()
}
