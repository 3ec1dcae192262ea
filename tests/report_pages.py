"""Pages of reports: how a test reads them, and the config of the runs that they are of."""

import re
from html.parser import HTMLParser

CONFIG = {'kind': 'train', 'method': 'supervised', 'model.name': 'ResNet14Small', 'prep.size': [1, 16, 16], 'prep.window': [-1000, 400],
          'data.source': 'phantom', 'data.phantom.kind': 'slice', 'eval.level': 0.95, 'eval.tta': 0, 'train.lr': 0.1,
          'versions': {'jax': '0'}, 'sites': ['oslo', 'bergen']}
VOID = {'meta', 'img', 'input', 'br', 'link'}


class Parsed(HTMLParser):
    """tags: (name, attributes) in order; text: all that is between; open: what was never closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], '', []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def assert_sound(text):
    """No address but in the page itself, a text for each image, headings without gaps, captions and headings of tables."""
    parsed = Parsed(text)
    assert parsed.open == ['html'] * ('</html>' not in text)
    for tag, attributes in parsed.tags:
        for name, value in attributes.items():
            assert not name.startswith('on'), f'{tag} {name}'
            if name in ('src', 'href', 'action', 'data', 'srcset'):
                assert value.startswith('data:image/' if tag == 'img' else '#'), value[:80]
    assert 'http' not in re.sub('base64,[^"]*', '', text).replace('http-equiv', '')
    assert not parsed.of('link') and len(parsed.of('script')) == 1
    assert all(len(image['alt']) > 5 for image in parsed.of('img'))
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    assert len(parsed.of('caption')) == len(parsed.of('table')) > 0
    assert all(cell['scope'] in ('col', 'row') for cell in parsed.of('th'))
    assert len(parsed.of('figcaption')) == len(parsed.of('figure'))
    ids = [attributes['id'] for _, attributes in parsed.tags if 'id' in attributes]
    assert len(ids) == len(set(ids)) and {link['href'][1:] for link in parsed.of('a')} <= {*ids}
    return parsed
