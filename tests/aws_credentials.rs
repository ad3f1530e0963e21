//! Tests of the credentials and the configuration that AWS stores find in their process: profiles,
//! roles and environment variables.
#![cfg(feature = "ssm")]
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "test code")]

use std::error::Error as StdError;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use keystead::{KeyId, KeyStoreExt, SecretKey};
use keystead_aws_testbed::{KMS_KEY, TestBed, isolated};
use keystead_conformance::Namespace;
use tempfile::TempDir;

/// The variable with the URL that a child process opens.
const CHILD: &str = "KEYSTEAD_TEST_CHILD";

/// A part of each secret, and of every other text that no error may show.
const MARKER: &str = "wJalrCanary";

/// A process that opens a store.
struct Process {
    bed: &'static TestBed,
    ns: Namespace,
    folder: TempDir,
    url: String,
    variables: Vec<(String, String)>,
}

/// The output of the process.
#[derive(Debug)]
struct Told {
    /// `ok`, or the error's kind, operation, effect, whether it is retryable, and its code.
    summary: String,
    /// The texts of the error and its causes.
    text: String,
}

impl Process {
    /// Returns a process without any settings, and a URL with region and endpoint.
    fn new() -> Self {
        let bed = TestBed::shared().unwrap();
        let ns = Namespace::random();
        let at = format!("kms_key={KMS_KEY}&region=us-east-1&endpoint_url={}", bed.url());
        let url = format!("ssm:///{ns}/user-keys/%s?{at}");
        Self { bed, ns, folder: tempfile::tempdir().unwrap(), url, variables: Vec::new() }
    }

    /// Returns a process without any settings, and a URL with these parameters.
    fn with_parameters(parameters: &str) -> Self {
        let mut process = Self::new();
        process.url = format!("ssm:///{}/user-keys/%s?kms_key={KMS_KEY}{parameters}", process.ns);
        process
    }

    fn parameter(mut self, parameter: &str) -> Self {
        self.url = format!("{}&{parameter}", self.url);
        self
    }

    fn set(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Adds static credentials to the environment.
    fn with_key(self) -> Self {
        self.set("AWS_ACCESS_KEY_ID", "AKIDTEST").set("AWS_SECRET_ACCESS_KEY", MARKER)
    }

    /// Adds this profile file.
    fn config(self, text: &str) -> Self {
        let path = self.file("config", text);
        self.set("AWS_CONFIG_FILE", path.to_str().unwrap())
    }

    /// Adds a profile `keys` with this shell script as its `credential_process`.
    fn process(self, script: &str) -> Self {
        let path = self.file("process.sh", script);
        self.config(&format!("[profile keys]\ncredential_process = sh {} {MARKER}\n", path.display()))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Opens the store, and writes and reads a key, in a separate process.
    fn run(&self) -> Told {
        let output = isolated(std::env::current_exe().unwrap())
            .args(["--exact", "a_child_tells_what_it_sees", "--nocapture"])
            .env("HOME", self.folder.path())
            // What should have been refused reaches nobody.
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env(CHILD, &self.url)
            .envs(self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .output()
            .unwrap();
        let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{shown}");
        assert!(!shown.contains(MARKER), "a secret is shown: {shown}");
        let line = |name: &str| {
            let line = shown.lines().find_map(|line| line.split_once(name));
            line.unwrap_or_else(|| panic!("no {name} in {shown}")).1.to_owned()
        };
        Told { summary: line("SUMMARY "), text: line("TEXT ") }
    }

    /// Asserts that the process fails with this outcome, and that its text has each of these words.
    fn fails(&self, summary: &str, words: &[&str]) {
        let told = self.run();
        assert!(told.summary.starts_with(summary), "{summary}: {told:?}");
        for word in words {
            assert!(told.text.contains(word), "{word}: {told:?}");
        }
    }

    fn succeeds(&self) {
        let told = self.run();
        assert_eq!(told.summary, "ok", "{told:?}");
    }

    fn calls_of(&self, operation: &str) -> usize {
        self.bed.calls(self.ns.as_str()).iter().filter(|call| call.operation == operation).count()
    }
}

/// The child process of the other tests, which set its variables.
#[test]
fn a_child_tells_what_it_sees() {
    if let Ok(url) = std::env::var(CHILD) {
        tell(&url);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn tell(url: &str) {
    match written(url).await {
        Ok(()) => println!("\nSUMMARY ok\nTEXT -"),
        Err(e) => {
            let code = e.details().and_then(|details| details.error_code.as_deref());
            let retryable = if e.is_retryable() { "retryable" } else { "final" };
            let kind = e.kind();
            let operation = e.operation();
            let effect = e.effect();
            println!("\nSUMMARY {kind:?} {operation:?} {effect:?} {retryable} {}", code.unwrap_or("-"));
            let mut text = e.to_string();
            let mut next = e.source();
            while let Some(cause) = next {
                text = format!("{text}: {cause}");
                next = cause.source();
            }
            println!("TEXT {text} DEBUG {e:?} {:?}", e.details());
        }
    }
}

async fn written(url: &str) -> keystead::Result<()> {
    let store = keystead::open(url).await?;
    let id = KeyId::new("alice").unwrap();
    let key = SecretKey::new([1; 32]).unwrap();
    if let Err(first) = store.put_key(&id, &key).await {
        // The SDK tells the reason of some failures only once.
        let second = store.put_key(&id, &key).await.unwrap_err();
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
        return Err(first);
    }
    assert_eq!(store.get_key(&id).await?, key);
    let _ = store.identify().await?;
    Ok(())
}

const GOOD_PROCESS: &str = r#"echo ran >> "$(dirname "$0")/ran"
echo '{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "wJalrCanary", "SessionToken": "wJalrCanary"}'
"#;

#[test]
fn a_profile_with_a_process_gives_credentials() {
    let by_environment = Process::new().process(GOOD_PROCESS).set("AWS_PROFILE", "keys");
    by_environment.succeeds();
    assert_eq!(fs::read_to_string(by_environment.folder.path().join("ran")).unwrap(), "ran\n");
    // A named profile has precedence over the credentials in the environment.
    let by_url = Process::new().process(GOOD_PROCESS).with_key().parameter("profile=keys");
    by_url.succeeds();
    assert_eq!(fs::read_to_string(by_url.folder.path().join("ran")).unwrap(), "ran\n");
}

#[test]
fn a_profile_gives_region_and_endpoint_too() {
    let process = Process::with_parameters("&profile=keys");
    let url = process.bed.url();
    let keys = format!("aws_access_key_id = AKIDTEST\naws_secret_access_key = {MARKER}\n");
    process.config(&format!("[profile keys]\nregion = us-east-1\nendpoint_url = {url}\n{keys}")).succeeds();
}

#[test]
fn a_profile_that_needs_a_missing_feature_names_it() {
    let process = Process::new().config("[profile keys]\nlogin_session = arn:aws:iam::123456789012:user/Admin\n");
    let process = process.set("AWS_PROFILE", "keys");
    match cfg!(feature = "credentials-login") {
        true => process.fails("Unauthenticated Put NotApplied final", &["run aws sso login or aws login"]),
        false => process.fails("Config Put NotApplied final", &["Cargo feature credentials-login of keystead"]),
    }
}

#[test]
fn a_profile_that_is_not_there_names_itself() {
    let config = "[profile keys]\nregion = us-east-1\n";
    let process = Process::new().config(config).set("AWS_PROFILE", "kyes");
    process.fails("Unauthenticated Put NotApplied final", &["there is no profile kyes", "correct AWS_PROFILE"]);
    let process = Process::new().config(config).with_key().parameter("profile=kyes");
    process.fails("Config Open NotApplied final", &["no AWS profile kyes"]);
    let process = Process::new().config(config).parameter("profile=keys");
    process.fails("Unauthenticated Put NotApplied final", &["no AWS credentials were found"]);
    let process = Process::new().config(&format!("[profile keys\n{MARKER}")).parameter("profile=keys");
    process.fails("Config Open NotApplied final", &["profile files cannot be parsed"]);
}

#[test]
fn without_credentials_each_provider_says_why() {
    let reasons = ["Environment: not set up", "EcsContainer: not set up", "Ec2InstanceMetadata: switched off"];
    Process::new().fails("Unauthenticated Put NotApplied final", &reasons);
    Process::new().set("AWS_ACCESS_KEY_ID", MARKER).fails("Unauthenticated Put NotApplied final", &reasons);
}

#[test]
fn profiles_that_cannot_be_used_say_what_to_do() {
    let keys = |config: &str| Process::new().config(config).set("AWS_PROFILE", "keys");
    for (config, summary, word) in [
        (
            "[profile keys]\nsource_profile = b\nrole_arn = a\n[profile b]\nsource_profile = keys\nrole_arn = a",
            "Config",
            "source_profile",
        ),
        ("[profile keys]\nrole_arn = a", "Config", "credential_source"),
        ("[profile keys]\nrole_arn = a\ncredential_source = wJalrCanary", "Config", "Ec2InstanceMetadata"),
        ("[profile keys]\naws_access_key_id = wJalrCanary", "Config", "keys"),
        ("[profile keys]\nsso_session = wJalrCanary\nsso_account_id = 1\nsso_role_name = a", "Config", "sso_session"),
        ("[profile keys]\nsso_account_id = 1", "Config", "sso settings"),
        (
            "[profile keys]\nsso_account_id = 1\nsso_role_name = a\nsso_region = us-east-1",
            "Unauthenticated",
            "lacks sso_start_url",
        ),
        (
            "[profile keys]\nsso_session = s\nsso_account_id = 1\nsso_role_name = a\n\
             [sso-session s]\nsso_region = us-east-1\nsso_start_url = https://wJalrCanary.example",
            "Unauthenticated",
            "run aws sso login",
        ),
        ("[profile keys\naws_secret_access_key = wJalrCanary", "Config", "cannot be parsed"),
    ] {
        keys(config).fails(summary, &[word]);
    }
}

#[test]
fn a_process_that_fails_is_told_without_its_output() {
    for (script, word) in [
        ("echo wJalrCanary >&2; exit 3", "exit status 3"),
        ("echo wJalrCanary", "not the JSON"),
        (r#"echo '{"AccessKeyId": "wJalrCanary", "SecretAccessKey": "wJalrCanary"}'"#, "not the JSON"),
        (
            r#"echo '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": "wJalrCanary"}'"#,
            "not the JSON",
        ),
        ("echo 'the SSO token has expired' >&2; exit 4", "exit status 4"),
    ] {
        let process = Process::new().process(script).parameter("profile=keys");
        process.fails("Unauthenticated Put NotApplied final", &["credential_process", word]);
    }
}

/// Starts a server that gives this answer to each request, and returns its URL.
fn endpoint(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn a_containers_endpoint_that_fails_is_unavailable_and_one_that_refuses_is_not() {
    let container = |status: &str, body: &str| {
        let url = endpoint(answer(status, body));
        let process = Process::new().set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{url}/{MARKER}"));
        process.set("AWS_CONTAINER_AUTHORIZATION_TOKEN", MARKER)
    };
    container("500 Internal Server Error", MARKER).fails("Unavailable Put NotApplied retryable", &["HTTP 500"]);
    container("429 Too Many Requests", MARKER).fails("Throttled Put NotApplied retryable", &["HTTP 429"]);
    container("403 Forbidden", MARKER).fails("Unauthenticated Put NotApplied final", &["HTTP 403"]);
    let refusal = format!(r#"{{"Code": "AccessDenied", "Message": "{MARKER}"}}"#);
    container("200 OK", &refusal).fails("Unauthenticated Put NotApplied final", &["role of the task"]);
    container("200 OK", MARKER).fails("Unauthenticated Put NotApplied final", &["credentials"]);
    let process = Process::new().set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://192.0.2.1/{MARKER}"));
    process.fails("Config Put NotApplied final", &["AWS_CONTAINER_CREDENTIALS_FULL_URI"]);
    let dead = Process::new().set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://127.0.0.1:1/{MARKER}"));
    dead.fails("Unavailable Put NotApplied retryable", &["could not be reached"]);
}

#[test]
fn an_instances_metadata_service_that_fails_is_unavailable_and_one_that_refuses_is_not() {
    let instance = |status: &str| {
        let process = Process::new().set("AWS_EC2_METADATA_DISABLED", "false");
        process.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint(answer(status, MARKER)))
    };
    instance("500 Internal Server Error").fails("Unavailable Put NotApplied retryable", &["metadata", "HTTP 500"]);
    instance("403 Forbidden").fails("Unauthenticated Put NotApplied final", &["metadata", "HTTP 403"]);
    let process = Process::new().set("AWS_EC2_METADATA_DISABLED", "false");
    let process = process.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "not a URL");
    process.fails("Config Put NotApplied final", &["AWS_EC2_METADATA_SERVICE_ENDPOINT"]);
}

fn role(process: &Process) -> String {
    format!("arn:aws:iam::123456789012:role/{}", process.ns)
}

#[test]
fn a_role_is_assumed_with_its_external_id_and_session_name() {
    let process = Process::new().with_key();
    let parameters = format!("role_arn={}&external_id=tenant:7&session_name=my-service", role(&process));
    process.parameter(&parameters).succeeds();
    let process = Process::new().with_key();
    let assumed = |parameters: &str, process: Process| {
        let process = process.parameter(parameters);
        process.succeeds();
        // One for all calls, that to AWS STS included.
        assert_eq!(process.calls_of("AssumeRole"), 1);
        process.bed.calls(process.ns.as_str()).into_iter().find(|call| call.operation == "AssumeRole").unwrap().text
    };
    let parameters = format!("role_arn={}&external_id=tenant:7&session_name=my-service", role(&process));
    let text = assumed(&parameters, process);
    assert!(text.contains("ExternalId=tenant%3A7") && text.contains("RoleSessionName=my-service"), "{text}");
    let process = Process::new().with_key();
    let parameters = format!("role_arn={}", role(&process));
    let text = assumed(&parameters, process);
    assert!(text.contains("RoleSessionName=keystead") && !text.contains("ExternalId"), "{text}");
}

#[test]
fn a_role_that_is_refused_names_the_code_and_a_failing_sts_is_unavailable() {
    let error = |code: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>\
             <Message>User {MARKER} is not authorized</Message>\
             </Error><RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId></ErrorResponse>"
        )
    };
    for (status, code, summary, word) in [
        (403, "AccessDenied", "Unauthenticated Put NotApplied final AccessDenied", "trust policy"),
        (403, "ExpiredToken", "Unauthenticated Put NotApplied final ExpiredToken", "ExpiredToken"),
        (503, "ServiceUnavailable", "Unavailable Put NotApplied retryable ServiceUnavailable", "HTTP 503"),
        (400, "Throttling", "Throttled Put NotApplied retryable Throttling", "Throttling"),
        (400, "ValidationError", "Config Put NotApplied final ValidationError", "role"),
    ] {
        let by_url = Process::new().with_key();
        let parameter = format!("role_arn={}", role(&by_url));
        let by_profile = Process::new().with_key();
        let config = format!("[profile keys]\nrole_arn = {}\ncredential_source = Environment\n", role(&by_profile));
        let sts = by_profile.bed.url();
        let by_profile = by_profile.config(&config).set("AWS_ENDPOINT_URL", &sts).parameter("profile=keys");
        for process in [by_url.parameter(&parameter), by_profile] {
            process.bed.answer("AssumeRole", process.ns.as_str(), 9, status, error(code));
            process.fails(summary, &["AssumeRole of AWS STS", code, word, "request"]);
            assert_eq!(process.calls_of("PutParameter"), 0);
        }
    }
}

#[test]
fn a_role_without_credentials_to_assume_it_says_so() {
    let process = Process::new();
    let parameter = format!("role_arn={}", role(&process));
    let process = process.parameter(&parameter);
    process
        .fails("Unauthenticated Put NotApplied final", &["no AWS credentials were found", "Environment: not set up"]);
}

#[test]
fn settings_that_the_sdk_panics_at_or_ignores_are_refused_by_name() {
    for (variable, value, word) in [
        ("AWS_MAX_ATTEMPTS", "0", "AWS_MAX_ATTEMPTS"),
        ("AWS_MAX_ATTEMPTS", "", "AWS_MAX_ATTEMPTS"),
        ("AWS_MAX_ATTEMPTS", "many", "AWS_MAX_ATTEMPTS"),
        ("AWS_RETRY_MODE", "fast", "AWS_RETRY_MODE"),
        ("AWS_RETRY_MODE", "", "AWS_RETRY_MODE"),
        ("AWS_USE_FIPS_ENDPOINT", "yes", "AWS_USE_FIPS_ENDPOINT"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "yes", "AWS_USE_DUALSTACK_ENDPOINT"),
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "yes", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
        ("AWS_ENDPOINT_URL", "", "AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL", "localhost:4566", "AWS_ENDPOINT_URL"),
        ("AWS_ENDPOINT_URL_SSM", "", "AWS_ENDPOINT_URL_SSM"),
        ("AWS_ENDPOINT_URL_STS", "not a URL", "AWS_ENDPOINT_URL_STS"),
        ("AWS_ENDPOINT_URL_SSO_OIDC", "", "AWS_ENDPOINT_URL_SSO_OIDC"),
    ] {
        let process = Process::with_parameters("&region=us-east-1").with_key().set(variable, value);
        process.fails("Config Open NotApplied final", &[word]);
    }
    for (region, variable) in [("", "AWS_REGION"), ("eu west-1", "AWS_REGION"), ("eu_west_1", "AWS_DEFAULT_REGION")] {
        let process = Process::with_parameters("").with_key().set(variable, region);
        process.fails("Config Open NotApplied final", &[variable]);
    }
    for (setting, name) in [
        ("max_attempts = 0", "max_attempts"),
        ("retry_mode = fast", "retry_mode"),
        ("use_fips_endpoint = yes", "use_fips_endpoint"),
        ("region = eu_west_1", "region"),
        ("endpoint_url = localhost:4566", "endpoint_url"),
    ] {
        let process =
            Process::with_parameters("").with_key().config(&format!("[default]\nregion = us-east-1\n{setting}\n"));
        process.fails("Config Open NotApplied final", &[name]);
    }
    let process = Process::new().with_key().set("AWS_USE_FIPS_ENDPOINT", "true");
    process.fails("Config Open NotApplied final", &["AWS_USE_FIPS_ENDPOINT", "endpoint"]);
}

#[test]
fn settings_that_are_right_are_taken() {
    let process = Process::new().with_key().set("AWS_MAX_ATTEMPTS", "2").set("AWS_RETRY_MODE", "adaptive");
    let process = process.set("AWS_USE_FIPS_ENDPOINT", "false").parameter("fips=false&dualstack=false");
    process.parameter("sdk_attempts=2&attempt_timeout=20&operation_timeout=30").succeeds();
}

#[test]
fn a_url_with_a_wrong_value_is_refused_by_name() {
    for (parameter, word) in [
        ("endpoint_url=", "endpoint_url"),
        ("endpoint_url=localhost:4566", "scheme"),
        ("endpoint_url=http://me:wJalrCanary@localhost", "user info"),
        ("region=", "region"),
        ("region=eu%20west-1", "region"),
        ("region=eu-west-1%0A", "region"),
        ("region=eu_west_1", "region"),
        ("profile=", "profile"),
        ("role_arn=wJalrCanary", "role_arn"),
        ("external_id=wJalrCanary", "role_arn"),
        ("role_arn=arn:aws:iam::123456789012:role/a&external_id=wJalrCanary%20", "external_id"),
        ("role_arn=arn:aws:iam::123456789012:role/a&session_name=wJalrCanary%20", "session_name"),
        ("fips=wJalrCanary", "fips"),
        ("dualstack=1", "dualstack"),
        ("sdk_attempts=0", "sdk_attempts"),
        ("sdk_attempts=wJalrCanary", "sdk_attempts"),
        ("attempt_timeout=0", "attempt_timeout"),
        ("attempt_timeout=5s", "attempt_timeout"),
        ("operation_timeout=0", "operation_timeout"),
        ("operation_timeout=-1", "operation_timeout"),
        ("fips=true&endpoint_url=http://localhost:4566", "fips"),
        ("dualstack=true&endpoint_url=http://localhost:4566", "dualstack"),
    ] {
        let region = if parameter.starts_with("region") { "" } else { "&region=us-east-1" };
        let process = Process::with_parameters(&format!("{region}&{parameter}")).with_key();
        process.fails("Config Open NotApplied final", &[word]);
    }
}
