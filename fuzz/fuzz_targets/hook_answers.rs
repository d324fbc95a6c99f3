//! Any bytes as what an application's hook answers: never a panic, never a yes of what is no
//! answer, and what goes on to clients is JSON and bounded.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use tidewire_protocol::{Code, Hook, HookAnswer};

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    check_refusal(&HookAnswer::forbidden(&body));
    for hook in Hook::ALL {
        let Ok(answer) = HookAnswer::parse(hook, &body) else { continue };
        let text = std::str::from_utf8(&body).unwrap().trim();
        // Nothing at all, or an object: no other thing is a yes.
        assert!(text.is_empty() || text.starts_with('{'));
        if let Some(refusal) = &answer.refusal {
            check_refusal(refusal);
        }
        for value in [&answer.payload, &answer.result].into_iter().flatten() {
            assert!(serde_json::from_slice::<&RawValue>(value).is_ok());
        }
        assert!(answer.payload.is_none() || matches!(hook, Hook::Publish | Hook::Rpc));
        assert!(answer.result.is_none() || hook == Hook::Publish);
        // An `error` that is there is a no.
        if let Ok(Value::Object(all)) = serde_json::from_str(text) {
            let says_no = all.get("error").is_some_and(|error| !error.is_null());
            assert_eq!(answer.refusal.is_some(), says_no);
        }
    }
});

fn check_refusal((code, message): &(Code, String)) {
    assert!(message.chars().count() <= 500);
    assert!(!matches!(code, Code::Unavailable | Code::Timeout | Code::Internal));
}
