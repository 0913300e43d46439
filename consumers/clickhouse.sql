-- The tables of `consumers run clickhouse`, made at its start where they are missing.
-- A column that is added here or by you is filled by its name: every key of a click's JSON value may be one.

CREATE TABLE IF NOT EXISTS link_clicks
(
    event_id        UUID,
    link_id         Int64 DEFAULT -1 COMMENT '-1: a click that names no link',
    user_id         Nullable(Int64),
    clicked_at      DateTime64(3, 'UTC'),
    visitor_id      Nullable(String) COMMENT 'the same person on the same UTC day',
    country         LowCardinality(Nullable(String)),
    region          LowCardinality(Nullable(String)),
    city            LowCardinality(Nullable(String)),
    referer         Nullable(String),
    trigger         LowCardinality(Nullable(String)),
    slug            LowCardinality(Nullable(String)),
    campaign        LowCardinality(Nullable(String)),
    adgroup         LowCardinality(Nullable(String)),
    ad              LowCardinality(Nullable(String)),
    network         LowCardinality(Nullable(String)),
    utm_source      LowCardinality(Nullable(String)),
    utm_medium      LowCardinality(Nullable(String)),
    utm_campaign    LowCardinality(Nullable(String)),
    utm_term        Nullable(String),
    utm_content     Nullable(String),
    user_agent      String,
    browser         LowCardinality(Nullable(String)),
    os              LowCardinality(Nullable(String)),
    device          LowCardinality(Nullable(String)),
    device_name     LowCardinality(Nullable(String)),
    platform        LowCardinality(Nullable(String)),
    bot_name        LowCardinality(Nullable(String)),
    bot_class       LowCardinality(Nullable(String)) COMMENT 'null: a person',
    klag_ms         Int64,
    kafka_cluster   LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition Int32,
    kafka_offset    Int64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(clicked_at)
ORDER BY (link_id, clicked_at, event_id)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS link_clicks_daily
(
    link_id Int64,
    day     Date,
    clicks  AggregateFunction(uniq, UUID),
    people  AggregateFunction(uniq, Nullable(String))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (link_id, day);

CREATE MATERIALIZED VIEW IF NOT EXISTS link_clicks_to_daily TO link_clicks_daily AS
SELECT link_id, toDate(clicked_at) AS day, uniqState(event_id) AS clicks, uniqState(visitor_id) AS people
FROM link_clicks
WHERE bot_class IS NULL
GROUP BY link_id, day;

CREATE TABLE IF NOT EXISTS link_clicks_dead
(
    kafka_cluster   LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition Int32,
    kafka_offset    Int64,
    died_at         DateTime64(3, 'UTC'),
    reason          String,
    value_hex       Nullable(String),
    value           Nullable(String) ALIAS unhex(value_hex)
)
ENGINE = ReplacingMergeTree
ORDER BY (kafka_cluster, kafka_topic, kafka_partition, kafka_offset)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS link_clicks_positions
(
    kafka_cluster   LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition Int32,
    next_offset     SimpleAggregateFunction(max, Int64) COMMENT 'all clicks before it are in link_clicks',
    open_until      SimpleAggregateFunction(max, Int64) COMMENT 'some of those between next_offset and this may be missing'
)
ENGINE = AggregatingMergeTree
ORDER BY (kafka_cluster, kafka_topic, kafka_partition);
