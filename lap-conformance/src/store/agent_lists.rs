//! Lists of agents.

use lap_core::agent::{AgentSpec, AgentSummary};
use lap_core::id::AgentId;
use lap_core::session::EndedBy;
use lap_core::store::{AgentOrder, AgentQuery, End, NewAgent};

use std::time::Duration;

use crate::StoreUnderTest;
use crate::scene::Scene;

/// An agent with this name and harness, a second younger than the one before.
async fn named(scene: &Scene<'_>, name: Option<&str>, harness: &str) -> AgentId {
    let new = scene.new_agent();
    let spec = AgentSpec {
        name: name.map(str::to_owned),
        harness: harness.to_owned(),
        ..new.spec.clone()
    };
    let agent = scene.create(NewAgent { spec, ..new }).await;
    scene.pass(Duration::from_secs(1)).await;
    agent.id
}

async fn listed(scene: &Scene<'_>, query: AgentQuery) -> Vec<AgentId> {
    let page = scene.store.list_agents(query).await.unwrap();
    page.agents.into_iter().map(|summary| summary.agent.id).collect()
}

/// A search finds parts of name, id and harness without regard to ASCII case, and its text has no wildcards.
pub async fn a_search_takes_wildcards_literally(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let percent = named(&scene, Some("100% Painter"), "opencode").await;
    let under = named(&scene, Some("snake_case"), "opencode").await;
    let slash = named(&scene, Some(r"back\slash"), "opencode").await;
    let plain = named(&scene, Some("plain"), "builtin").await;
    let nameless = named(&scene, None, "Codex").await;
    let tail = nameless.to_string()[24..].to_uppercase();
    let searches: [(&str, &[AgentId]); 9] = [
        ("%", &[percent]),
        ("_", &[under]),
        (r"\", &[slash]),
        ("painter", &[percent]),
        ("PLAIN", &[plain]),
        ("codex", &[nameless]),
        (&tail, &[nameless]),
        ("a%n", &[]),
        ("", &[percent, under, slash, plain, nameless]),
    ];
    for (search, expected) in searches {
        let query = AgentQuery {
            search: Some(search.to_owned()),
            descending: false,
            ..AgentQuery::default()
        };
        assert_eq!(
            listed(&scene, query.clone()).await,
            expected,
            "search for {search:?}"
        );
        assert_eq!(
            scene.store.list_agents(query).await.unwrap().total,
            expected.len() as u64
        );
    }
}

/// Agents are listed by creation, name, harness or number of sessions, in both directions, ties by id.
pub async fn agents_are_listed_in_the_asked_order(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let beta = named(&scene, Some("Beta"), "opencode").await;
    let nameless = named(&scene, None, "builtin").await;
    let alpha = named(&scene, Some("alpha"), "opencode").await;
    let gamma = named(&scene, Some("gamma"), "codex").await;
    for _ in 0..2 {
        let agent = scene.store.agent(alpha).await.unwrap().unwrap();
        scene.open(scene.new_open(&agent)).await;
    }
    let agent = scene.store.agent(nameless).await.unwrap().unwrap();
    scene.open(scene.new_open(&agent)).await;
    let orders = [
        (AgentOrder::CreatedAt, false, [beta, nameless, alpha, gamma]),
        (AgentOrder::CreatedAt, true, [gamma, alpha, nameless, beta]),
        (AgentOrder::Name, false, [alpha, beta, gamma, nameless]),
        (AgentOrder::Name, true, [gamma, beta, alpha, nameless]),
        (AgentOrder::Harness, false, [nameless, gamma, beta, alpha]),
        (AgentOrder::Harness, true, [alpha, beta, gamma, nameless]),
        (AgentOrder::Sessions, false, [beta, gamma, nameless, alpha]),
        (AgentOrder::Sessions, true, [alpha, nameless, gamma, beta]),
    ];
    for (order, descending, expected) in orders {
        let query = AgentQuery {
            order,
            descending,
            ..AgentQuery::default()
        };
        assert_eq!(
            listed(&scene, query).await,
            expected,
            "by {order:?}, descending: {descending}"
        );
    }
}

/// Pages by limit and offset cover the list without overlap; the total counts all that match.
pub async fn pages_of_agents_cover_the_list(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let mut all = Vec::new();
    for index in 0..5 {
        all.push(named(&scene, Some(&format!("agent {index}")), "opencode").await);
    }
    named(&scene, Some("other"), "opencode").await;
    let mut pages = Vec::new();
    for offset in [0, 2, 4, 6] {
        let search = Some("agent".to_owned());
        let query = AgentQuery {
            search,
            descending: false,
            limit: 2,
            offset,
            ..AgentQuery::default()
        };
        let page = scene.store.list_agents(query).await.unwrap();
        assert_eq!(page.total, 5, "the total does not depend on the page");
        pages.extend(page.agents.into_iter().map(|summary| summary.agent.id));
    }
    assert_eq!(pages, all);
}

/// A list says how many sessions an agent ever had and whether one is creating or ready.
pub async fn a_list_tells_about_sessions(subject: &StoreUnderTest) {
    let scene = Scene::new(subject);
    let agent = scene.agent().await;
    let summary = || async {
        let AgentSummary {
            agent: listed,
            session_count,
            has_active_session,
        } = scene
            .store
            .list_agents(AgentQuery::default())
            .await
            .unwrap()
            .agents
            .remove(0);
        assert_eq!(listed, agent);
        (session_count, has_active_session)
    };
    assert_eq!(summary().await, (0, false));
    let first = scene.open(scene.new_open(&agent)).await.session.id;
    let second = scene.open(scene.new_open(&agent)).await.session.id;
    assert_eq!(summary().await, (2, true));
    for session in [first, second] {
        let end = End {
            session,
            by: EndedBy::User,
            reason: None,
            only_if_idle_for: None,
        };
        scene.store.end(end).await.unwrap();
    }
    assert_eq!(
        summary().await,
        (2, false),
        "ended sessions are counted and are not active"
    );
}
