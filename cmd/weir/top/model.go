package top

import (
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Model is what the screen shows. Update and View ask nothing but the model and the message.
type Model struct {
	take     func() (Sample, error)
	interval time.Duration

	now    Sample
	tables [5]Table
	lost   error // of the latest question; nil once the daemon answers again
	since  time.Time

	view          int
	order         [5]order
	filter        string
	typing        bool
	first         int // row that the page begins with
	width, height int
}

// order is how one view is sorted: numbers begin with the greatest, words with a, unless reverse.
type order struct {
	column  int
	reverse bool
}

// Taken is the message of a question that was answered, or was not.
type Taken struct {
	Sample Sample
	Err    error
	At     time.Time
}

type tick struct{}

// New begins with two samples; later ones come from take, every interval.
func New(before, now Sample, interval time.Duration, take func() (Sample, error)) Model {
	m := Model{take: take, interval: interval, now: now, tables: Tables(&before, &now), width: 80, height: 24}
	m.order = [5]order{{column: 4}, {column: 6}, {column: 0, reverse: true}, {column: 1}, {column: 4}} // the busiest on top; workers by number
	return m
}

// Init waits for the first interval.
func (m Model) Init() tea.Cmd { return m.wait() }

func (m Model) wait() tea.Cmd { return tea.Tick(m.interval, func(time.Time) tea.Msg { return tick{} }) }

// Update follows a key, the size of the terminal, or a sample.
func (m Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var next tea.Cmd
	switch x := msg.(type) {
	case tick: // the next one comes after the answer: a slow daemon is not asked twice at once
		take := m.take
		next = func() tea.Msg {
			s, err := take()
			return Taken{s, err, time.Now()}
		}
	case Taken:
		m.taken(x)
		next = m.wait()
	case tea.WindowSizeMsg:
		m.width, m.height = x.Width, x.Height
	case tea.KeyPressMsg:
		if x.String() == "ctrl+c" {
			return m, tea.Quit
		}
		if m.typing {
			m.typed(x)
		} else if x.String() == "q" {
			return m, tea.Quit
		} else {
			m.key(x.String())
		}
	}
	m.first = max(0, min(m.first, len(m.rows())-m.page()))
	return m, next
}

func (m *Model) taken(x Taken) {
	if x.Err != nil {
		if m.lost == nil {
			m.since = x.At
		}
		m.lost = x.Err
		return
	}
	m.lost = nil
	m.tables = Tables(&m.now, &x.Sample)
	m.now = x.Sample
}

func (m *Model) typed(k tea.KeyPressMsg) {
	switch k.String() {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		m.filter += k.Text
	}
}

func (m *Model) key(k string) {
	o := &m.order[m.view]
	columns := len(m.tables[m.view].Columns)
	switch k {
	case "tab":
		m.view, m.first = (m.view+1)%len(m.tables), 0
	case "shift+tab":
		m.view, m.first = (m.view+len(m.tables)-1)%len(m.tables), 0
	case "1", "2", "3", "4", "5":
		m.view, m.first = int(k[0]-'1'), 0
	case "s":
		*o = order{column: (o.column + 1) % columns}
	case "S":
		*o = order{column: (o.column + columns - 1) % columns}
	case "r":
		o.reverse = !o.reverse
	case "/":
		m.typing = true
	case "esc":
		m.filter = ""
	case "up", "k":
		m.first--
	case "down", "j":
		m.first++
	case "pgup":
		m.first -= m.page()
	case "pgdown":
		m.first += m.page()
	case "home":
		m.first = 0
	case "end":
		m.first = len(m.rows())
	}
}

// page is how many rows there is room for.
func (m *Model) page() int { return max(1, m.height-chrome) }

// rows are those of the view that have the filter in one of their words, sorted. Equal ones keep the daemon's order, so nothing jumps.
func (m *Model) rows() (rows [][]Cell) {
	t, o := &m.tables[m.view], m.order[m.view]
	want := strings.ToLower(m.filter)
	for _, row := range t.Rows {
		if slices.ContainsFunc(row, func(c Cell) bool { return strings.Contains(strings.ToLower(c.Word), want) }) {
			rows = append(rows, row)
		}
	}
	slices.SortStableFunc(rows, func(a, b []Cell) int {
		n := compare(a[o.column], b[o.column])
		if o.reverse != !t.Columns[o.column].Words {
			n = -n
		}
		return n
	})
	return rows
}
