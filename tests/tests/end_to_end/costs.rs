//! What a job costs, to the last digit.

use gh_tests::{Receiver, Server, submission};
use serde_json::json;

#[tokio::test]
async fn a_script_of_ones_own_shows_its_events_and_its_cost_to_the_digit() {
    let (server, receiver) = (Server::start(1).await, Receiver::start().await);
    let client = server.client();
    let script = json!([
        { "event": { "event_type": "step_started", "message": "Opening my own page", "metadata": { "step_index": 1, "total_steps": 2 } } },
        { "usage": { "call_id": "c1", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
                     "usage": { "input": 1, "output": 1 } } },
        { "event": { "event_type": "my_own_event", "message": "Something only I know" } },
        { "usage": { "call_id": "c2", "provider": "anthropic", "model": "claude-sonnet-4-20250514",
                     "usage": { "input": 7, "cache_read": 22137, "cache_write_5m": 2000, "cache_write_1h": 1000, "output": 384 } } },
        { "event": { "event_type": "step_completed", "message": "Opened it", "metadata": { "step_index": 1, "total_steps": 2 } } },
        { "complete": { "result_summary": "My own work is done" } },
    ]);
    let job_id = client
        .submit(&submission(&json!({ "input_data": { "script": script }, "callback_url": receiver.url() })))
        .await;
    let job = client.job_when(&job_id, "completed").await;
    // 0.000006 and 0.0259221, exactly.
    assert_eq!(job.total_cost(), "0.0259281".parse().ok(), "{}", job.text);
    assert!(job.text.contains("\"total_cost_usd\":0.0259281"), "{}", job.text);

    let events = client.get(&format!("/jobs/{job_id}/events?limit=200")).await.expect(200);
    let types: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    for expected in
        ["job_queued", "job_started", "step_started", "my_own_event", "tokens_used", "step_completed", "job_completed"]
    {
        assert!(types.contains(&expected), "{expected} is missing in {types:?}");
    }
    let sequence: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (1..=sequence.len() as u64).collect::<Vec<_>>());

    let callbacks = receiver.until(&job_id, "completed").await;
    let last = callbacks.last().unwrap();
    assert_eq!(last["cost"]["total_cost_usd"], json!(0.025_928_1));
    assert_eq!((&last["cost"]["complete"], &last["cost"]["final"]), (&json!(true), &json!(true)));
    assert_eq!(last["result_summary"], "My own work is done");
}

#[tokio::test]
async fn an_unknown_model_is_flagged_and_never_free() {
    let server = Server::start(1).await;
    let client = server.client();
    let script = json!([
        { "usage": { "call_id": "c1", "provider": "anthropic", "model": "claude-haiku-4-5-20251001", "usage": { "input": 2100, "output": 1130 } } },
        { "usage": { "call_id": "c2", "provider": "acme", "model": "acme-model-9", "usage": { "input": 100, "output": 10 } } },
        { "complete": {} },
    ]);
    let job_id = client.submit(&submission(&json!({ "input_data": { "script": script } }))).await;
    let job = client.job_when(&job_id, "completed").await;
    assert_eq!(job.total_cost(), "0.00775".parse().ok());
    let cost = job.json()["cost"].clone();
    assert_eq!((&cost["complete"], &cost["unpriced_models"]), (&json!(false), &json!(["acme-model-9"])));
}
