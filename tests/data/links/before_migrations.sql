-- The tables as they were made before there were migrations, and a link in them.
CREATE TABLE IF NOT EXISTS links (
    id BIGINT NOT NULL, campaign TEXT, adgroup TEXT, ad TEXT, campaign_url TEXT, target_url JSON,
    attribution_window_fingerprint INTEGER, attribution_window_idfa INTEGER, network TEXT, country TEXT, device TEXT,
    user_id BIGINT, slug VARCHAR(64), mode TEXT, utm_source TEXT, utm_medium TEXT, utm_campaign TEXT, utm_term TEXT,
    utm_content TEXT, forward_query BOOLEAN, store_referrer BOOLEAN, schemes JSON, starts_at VARCHAR(40),
    expires_at VARCHAR(40), enabled BOOLEAN, tags JSON, total_clicks BIGINT DEFAULT '0' NOT NULL,
    revision BIGINT NOT NULL, deleted BOOLEAN NOT NULL, PRIMARY KEY (id)
);
CREATE INDEX IF NOT EXISTS ix_links_revision ON links (revision);
CREATE TABLE IF NOT EXISTS links_revision (row INTEGER NOT NULL, last BIGINT NOT NULL, PRIMARY KEY (row));
INSERT INTO links_revision (row, last) VALUES (1, 0) ON CONFLICT DO NOTHING;
INSERT INTO links (id, target_url, mode, forward_query, store_referrer, schemes, enabled, tags, total_clicks, revision,
    deleted) VALUES (46, '{"default": "https://old.example/"}', 'redirect', FALSE, FALSE, '[]', TRUE, '[]', 7, 1, FALSE);
UPDATE links_revision SET last = 1;
