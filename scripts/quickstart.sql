-- A small CRM of about 50 MB: the tables and columns of a real one, with made-up people.
CREATE TABLE campaigns (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  channel text NOT NULL CHECK (channel IN ('email', 'phone', 'sms', 'linkedin')),
  status text NOT NULL DEFAULT 'active',
  budget numeric(12, 2) NOT NULL,
  starts_on date NOT NULL,
  settings jsonb NOT NULL DEFAULT '{}'
);
CREATE TABLE leads_contact_info (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  lead_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
  campaign_id bigint NOT NULL REFERENCES campaigns,
  first_name text NOT NULL,
  last_name text NOT NULL,
  email text NOT NULL UNIQUE,
  phone text,
  company text,
  lead_score integer NOT NULL DEFAULT 0,
  custom_fields jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE communications (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  lead_id uuid NOT NULL REFERENCES leads_contact_info (lead_id),
  direction text NOT NULL CHECK (direction IN ('inbound', 'outbound')),
  channel text NOT NULL,
  subject text,
  body text NOT NULL,
  sent_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

INSERT INTO campaigns (name, channel, budget, starts_on, settings)
SELECT format('Campaign %s', i), (ARRAY['email', 'phone', 'sms', 'linkedin'])[1 + i % 4], 1000 + i * 17.35,
  date '2025-01-01' + i,
  jsonb_build_object('daily_limit', 50 + i, 'tags', jsonb_build_array('q' || i % 4, md5(i::text)))
FROM generate_series(1, 200) AS i;

INSERT INTO leads_contact_info
  (lead_id, campaign_id, first_name, last_name, email, phone, company, lead_score, custom_fields, created_at)
SELECT md5('lead' || i)::uuid, 1 + i % 200,
  (ARRAY['Ada', 'Grace', 'Edgar', 'Barbara', 'Michael', 'Radia', 'Jim', 'Margaret'])[1 + i % 8],
  initcap(translate(substr(md5('name' || i), 1, 8), '0123456789', 'aeiounrstl')),
  format('lead%s@example.com', i), format('+1-555-%s', lpad((i % 10000)::text, 4, '0')),
  format('%s Ltd', initcap(substr(md5('company' || i % 5000), 1, 6))), i % 100,
  jsonb_build_object('source', 'import', 'reference', md5('reference' || i)),
  timestamptz '2025-01-01 00:00+00' + i * interval '7 minutes'
FROM generate_series(1, 50000) AS i;

INSERT INTO communications (lead_id, direction, channel, subject, body, sent_at)
SELECT md5('lead' || 1 + i % 50000)::uuid, (ARRAY['inbound', 'outbound'])[1 + i % 2],
  (ARRAY['email', 'phone', 'sms'])[1 + i % 3], format('Your enquiry no. %s', i),
  format('Dear customer, about %s: %s. Regards, team %s', md5('subject' || i), repeat(md5(i::text) || ' ', 3), i % 17),
  timestamptz '2025-02-01 00:00+00' + i * interval '3 minutes'
FROM generate_series(1, 100000) AS i;
CREATE INDEX ON communications (lead_id, sent_at);
ANALYZE;

-- One message to somebody, as the application would log it.
CREATE PROCEDURE log_communication() LANGUAGE sql AS $$
  INSERT INTO communications (lead_id, direction, channel, subject, body)
  SELECT lead_id, 'outbound', 'email', 'A word from us', 'Dear ' || first_name || ', ' || gen_random_uuid()
  FROM leads_contact_info WHERE id = (SELECT 1 + floor(random() * 50000)::bigint)
$$;
