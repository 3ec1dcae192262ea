"""Real file names, and the articles, cases and patients that they are of."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
from layouts import listed, touch
from scan_files import real

from covid_jax.data.splits import assign_sources, own_splits
from covid_jax.sources import names, published_images
from covid_jax.sources.exams import Exam

# Names of COVID-CT, of the X-rays of ieee8023 and ChestX-ray8, and of Kermany. Those of one line are of one group.
COVID_CT = {
    '2020.03.13.20035212': ['2020.03.13.20035212-p23-152.png', '2020.03.13.20035212-p23-163.png'],
    '2020.02.22.20024927': ['2020.02.22.20024927-p18-66%0.png', '2020.02.22.20024927-p20-70%3.png'],
    '2020.02.26.20026989': ['2020.02.26.20026989-p34-114_1%0.png', '2020.02.26.20026989-p34-114_2%1.png'],
    '2020.03.21.20040691': ['2020.03.21.20040691-p18-6-6.png', '2020.03.21.20040691-p18-67-1.png'],
    '2020.01.24.919183': ['2020.01.24.919183-p27-132.png'],
    'S0140673620303603': ['PIIS0140673620303603%8.png', '1-s2.0-S0140673620303603-gr1.jpg'],
    '39': ['39%0.jpg', '39%8.jpg'], '3': ['3%9.jpg']}
XRAYS = {
    'S0929664620300449': ['1-s2.0-S0929664620300449-gr2_lrg-a.png', '1-s2.0-S0929664620300449-gr2_lrg-d.jpg'],
    'S1684118220300682': ['1-s2.0-S1684118220300682-main.pdf-002-a1.png', '1-s2.0-S1684118220300682-main.pdf-003-b2.png'],
    'S1684118220300608': ['1-s2.0-S1684118220300608-main.pdf-001.png'],
    '1.CXRCTThoraximagesofCOVID-19fromSingapore': ['1.CXRCTThoraximagesofCOVID-19fromSingapore.pdf-001-fig2a.png',
                                                   '1.CXRCTThoraximagesofCOVID-19fromSingapore.pdf-003-fig4a.png'],
    '41591_2020_819': ['41591_2020_819_Fig1_HTML.webp-day10.png', '41591_2020_819_Fig1_HTML.webp-day5.png'],
    'all14238': ['all14238-fig-0001-m-b.jpg', 'all14238-fig-0002-m-e.png'],
    'auntminnie-2020_01_28_23_51_6665_2020_01_28_Vietnam_coronavirus': [
        'auntminnie-a-2020_01_28_23_51_6665_2020_01_28_Vietnam_coronavirus.png',
        'auntminnie-b-2020_01_28_23_51_6665_2020_01_28_Vietnam_coronavirus.png'],
    'bjr.20200182': ['bjr.20200182.g004.jpg'],
    'covid-19-pneumonia-2': ['covid-19-pneumonia-2.png'],
    'covid-19-pneumonia-24': ['covid-19-pneumonia-24-day12.png', 'covid-19-pneumonia-24-day6.png'],
    'covid-19-pneumonia-58': ['covid-19-pneumonia-58-prior.jpg', 'covid-19-pneumonia-58-day-9.jpg'],
    'covid-19-pneumonia-15': ['covid-19-pneumonia-15-PA.png'], 'covid-19-pneumonia-19': ['covid-19-pneumonia-19.png'],
    'covid-19-caso-70': ['covid-19-caso-70-1-PA.jpg'],
    'covid-19-pneumonia-rapidly-progressive': ['covid-19-pneumonia-rapidly-progressive-admission.png'],
    'covid-19-rapidly-progressive-acute-respiratory-distress-syndrome-ards': [
        'covid-19-rapidly-progressive-acute-respiratory-distress-syndrome-ards-day-1.png',
        'covid-19-rapidly-progressive-acute-respiratory-distress-syndrome-ards-day-3.jpg'],
    'covid-19-infection-exclusive-gastrointestinal-symptoms': [
        'covid-19-infection-exclusive-gastrointestinal-symptoms-pa.png',
        'covid-19-infection-exclusive-gastrointestinal-symptoms-l.png'],
    'figure1-5e75d0940b71e1b702629659': ['figure1-5e75d0940b71e1b702629659-98-right.png'],
    'jkms-35-e79': ['jkms-35-e79-g001-l-b.png', 'jkms-35-e79-g001-l-c.png'],
    'lancet-case2': ['lancet-case2a.png', 'lancet-case2b.png'],
    'nCoV-radiol.2020200269': ['nCoV-radiol.2020200269.fig1-day7.png'],
    'nejmc2001573': ['nejmc2001573_f1a.jpeg', 'nejmc2001573_f1b.png'],
    'nejmoa2001191': ['nejmoa2001191_f1-PA.png', 'nejmoa2001191_f4.jpeg', 'nejmoa2001191_f5-PA.png'],
    'ryct.2020200034': ['ryct.2020200034.fig5-day0.png', 'ryct.2020200034.fig2.jpeg'],
    '00001362': ['00001362_014.png', '00001362_017.png'], '00001305': ['00001305_001.png'],
    'person1_virus': ['person1_virus_6.jpeg', 'person1_virus_13.jpeg'], 'person1_bacteria': ['person1_bacteria_1.jpeg']}
ALONE = ['102.png', '25.png', '20.jpg', 'Covid (12).png', 'Non-Covid (1005).png', '58cb9263f16e94305c730685358e4e_jumbo.png',
         '31BA3780-2323-493F-8AED-62081B9C383B.png', '353889E0-A1E8-4F9E-A0B8-F24F36BCFBFB.png',
         '353889e0-a1e8-4f9e-a0b8-f24f36bcfbfb.png', 'IM-0115-0001.jpeg', 'NORMAL2-IM-1337-0001.jpeg']


@pytest.mark.parametrize('group', [*COVID_CT, *XRAYS])
def test_real_names_are_of_their_article_case_or_patient(group):
    assert {names.article(name) for name in (COVID_CT | XRAYS)[group]} == {group}


@pytest.mark.parametrize('name', ALONE)
def test_a_name_that_says_no_more_is_of_no_group(name):
    assert names.article(name) == ''


def test_how_many_groups_is_said():
    assert names.groups_told(['39%0.jpg', '39%8.jpg', '3%9.jpg', '25.png']) == (
        'by their names 3 are 2 groups (an article, a figure, a case or a patient each), 1 whose names say no more are groups of '
        'their own')
    assert names.groups_told(['39%0.jpg']).endswith('patient each)')


def test_a_group_in_two_splits_is_parted_and_whole_again():
    exams = [Exam(f'{i}', patient, 'x', 'covid', split, '') for i, (patient, split) in enumerate(
        [('a', 'train'), ('a', 'val'), ('b', 'train'), ('b', 'train'), ('p', 'train'), ('p', 'val')])]
    parted, torn = names.part(exams, {'a', 'b'})
    assert [exam.patient for exam in parted] == ['a (train)', 'a (val)', 'b', 'b', 'p', 'p'] and torn == ['a']
    assert [names.whole(exam) for exam in parted] == [exam._replace(split='') for exam in exams]


def splits_of(exams, group_of):
    """{group: splits that it is in}, over drawn splits and folds."""
    classes = ('NonCOVID|normal|pneumonia', 'COVID|COVID-19')
    for folds, fold, seed in ((1, 0, 0), (1, 0, 1), (3, 0, 0), (3, 2, 1)):
        data = SimpleNamespace(source='x', classes=classes, split='drawn', val=0.2, test=0.2, held_out=(),
                               sites=(), held_out_sites=(), split_seed=seed)
        found = defaultdict(set)
        for exam in assign_sources(own_splits([exams], data, folds, list), data, folds, fold, list):
            found[group_of(exam)].add(exam.split)
        yield found


@pytest.mark.parametrize('source, folders, groups', [
    (published_images.covid_ct, ('Images-processed/CT_COVID', 'Images-processed/CT_NonCOVID'), COVID_CT),
    (published_images.chest_xray, ('Covid-19', 'No_findings', 'Pneumonia'), XRAYS)])
def test_no_article_is_on_both_sides_of_a_drawn_split_or_fold(tmp_path, source, folders, groups):
    """Also where it is in two classes: its images lie in all folders in turn."""
    group_of = {name: group for group, found in groups.items() for name in found}
    for i, name in enumerate([*group_of, *ALONE]):
        touch(tmp_path / folders[i % len(folders)], name)
    exams, _ = listed(source, tmp_path)
    name_of = {exam.id: exam.id.split('/')[-1] for exam in exams}
    for found in splits_of(exams, lambda exam: group_of.get(name_of[exam.id], exam.id)):
        assert len(found) == len(groups) + len(ALONE)
        assert all(len(splits) == 1 for splits in found.values()) and set().union(*found.values()) == {'train', 'val', 'test'}


@pytest.mark.parametrize('source, root, ends, count', [
    (published_images.covid_ct, 'COVID-CT', ('-p', '%'), 40 + 39 + 170),
    (published_images.chest_xray, 'chest-xray', ('.pdf', '-day', '_f', '.fig', '-g00', '_', 'a.', 'b.'), None)])
def test_nor_is_one_of_the_real_images(source, root, ends, count):
    """Two names that are equal up to the first of `ends` are surely of one article or patient."""
    exams, _ = listed(source, real(root))

    def start(exam):
        name = exam.id.split('/')[-1]
        return min((name.partition(end)[0] for end in ends), key=len)

    for found in splits_of(exams, start):
        assert all(len(splits) == 1 for splits in found.values())
        assert count in (None, len(found))
