package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// chrome is how many lines are no rows: summary, views, titles, footer.
const chrome = 4

// View draws the screen, never wider or higher than the terminal.
func (m Model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

func (m *Model) screen() string {
	rows := m.rows()
	page := rows[m.first:min(len(rows), m.first+m.page())]
	lines := append([]string{m.summary(), m.views()}, m.grid(page)...)
	footer := fmt.Sprintf("%d-%d of %d  tab 1-5 view  s S sort  r reverse  / filter  q quit", min(m.first+1, len(rows)), m.first+len(page), len(rows))
	switch {
	case m.typing:
		footer = "filter: " + printable(m.filter) + "_"
	case m.filter != "":
		footer = "filter " + printable(m.filter) + " (esc: none)  " + footer
	}
	lines = append(lines, footer)
	if len(lines) > m.height {
		lines = lines[:max(1, m.height)]
	}
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], m.width, "")
	}
	return strings.Join(lines, "\n")
}

func (m *Model) summary() string {
	if m.lost != nil { // first, so that a narrow terminal has it, too
		return fmt.Sprintf("NO ANSWER since %s, asking again: %s", m.since.Format("15:04:05"), printable(m.lost.Error()))
	}
	s := &m.now
	return fmt.Sprintf("weir %s  pid %d  generation %d  %d of %d conns  %d up %d down  every %s",
		printable(s.Status.Version), s.Status.PID, s.Stats.Generation, s.Status.Connections, s.Status.Capacity, s.Status.Health.Up, s.Status.Health.Down, m.interval)
}

func (m *Model) views() string {
	var all []string
	for i, t := range m.tables {
		name := fmt.Sprintf("%d %s", i+1, t.Name)
		if i == m.view {
			name = "[" + name + "]"
		}
		all = append(all, name)
	}
	return strings.Join(all, "  ")
}

// grid is the titles and the rows of a page; the column that they are sorted by has an arrow. Numbers stand to the right.
func (m *Model) grid(page [][]Cell) []string {
	t, o := &m.tables[m.view], m.order[m.view]
	lines := make([][]string, len(page)+1)
	for j, c := range t.Columns {
		title := c.Title
		if j == o.column {
			arrow := "↓"
			if o.reverse != c.Words {
				arrow = "↑"
			}
			title += arrow
		}
		cells := []string{title}
		width := ansi.StringWidth(title)
		for _, row := range page {
			cells = append(cells, c.text(row[j]))
			width = max(width, ansi.StringWidth(cells[len(cells)-1]))
		}
		for i, s := range cells {
			pad := strings.Repeat(" ", width-ansi.StringWidth(s))
			if c.Words {
				s += pad
			} else {
				s = pad + s
			}
			lines[i] = append(lines[i], s)
		}
	}
	text := make([]string, len(lines))
	for i := range lines {
		text[i] = strings.Join(lines[i], "  ")
	}
	return text
}

func printable(s string) string { return Column{Words: true}.text(word(s)) }
