# SPDX-License-Identifier: GPL-2.0-or-later
# doctor looks at everything and fails for nothing; what it finds depends on the host.
img doctor | sed 's/ .*//' | grep -v '^$'
img doctor --output=json > json
python3 - << 'END'
import json
for c in json.load(open('json')):
    assert c['health'] in ('ok', 'limited', 'missing') and c['text'], c
    assert c['health'] == 'ok' or c['advice'], c
    print(c['name'])
END
img doctor disk
img doctor --output=xml
